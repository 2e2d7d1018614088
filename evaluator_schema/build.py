"""Building constructions: in the order in which they were made, with the holes filled by a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch.nn import Module

from .construction import Construction, GroupChange, all_constructions
from .values import (
    InPlace,
    Iterated,
    ModuleHole,
    ParameterHole,
    ParametersHole,
    Ref,
    Shared,
    copy_callable,
    copy_tensor,
    map_container,
)


class Filling(Protocol):
    """What fills the holes of constructions: a model, seen through the names that were recorded."""

    def parameter(self, hole: ParameterHole) -> torch.Tensor:
        """Give the one parameter that a hole stands for."""

    def parameters(self, hole: ParametersHole) -> list[Any]:
        """Give the parameters that a hole stands for, or `(name, parameter)` pairs if it is `named`."""

    def module(self, hole: ModuleHole) -> Module:
        """Give the module that a hole stands for."""


def build(constructions: Iterable[Construction], filling: Filling) -> dict[int, Any]:
    """Build all constructions, and those inside them, in the order in which they were first made.

    Siblings act on the optimizer they share as they are built (a scheduler writes learning rates), so the
    order is that of the calls, not that of the references.

    Args:
        constructions: What to build.
        filling: What to put into the holes.

    Returns:
        What was built, by the `order` of its construction.
    """
    steps: list[tuple[int, Construction, GroupChange | None]] = []
    for construction in all_constructions(list(constructions)):
        steps.append((construction.order, construction, None))
        steps += [(change.order, construction, change) for change in construction.changes]
    built: dict[int, Any] = {}
    fill = _filler(filling, built)
    for order, construction, change in sorted(steps, key=lambda step: step[0]):
        if change is None:
            args = [fill(value) for value in construction.args]
            kwargs = {key: fill(value) for key, value in construction.kwargs.items()}
            built[order] = construction.target(*args, **kwargs)
        else:
            _apply(built[construction.order], change.group, fill(change.options))
    return built


def _filler(filling: Filling, built: dict[int, Any]) -> Callable[[Any], Any]:
    """Make the function that copies a recorded value with its holes filled."""
    shared: dict[int, Any] = {}

    def fill(value: Any) -> Any:
        match value:
            case ParametersHole():
                return filling.parameters(value)
            case ParameterHole():
                return filling.parameter(value)
            case ModuleHole():
                return filling.module(value)
            case Ref():
                return built[value.order]
            case Construction():
                return built[value.order]
            case Iterated():
                return iter(fill(value.items))
            case Shared():
                if value.number not in shared:
                    shared[value.number] = fill(value.value)
                return shared[value.number]
            case InPlace():
                return InPlace(fill(value.value))
            case torch.Tensor():
                return copy_tensor(value)
        if callable(value):
            return copy_callable(value)
        return map_container(value, fill)

    return fill


def _apply(optimizer: Any, number: int, options: dict[str, Any]) -> None:
    if number == len(optimizer.param_groups):
        optimizer.add_param_group(options)
        return
    group = optimizer.param_groups[number]
    for key, value in options.items():
        if key == "params":
            group[key][:] = value
        elif isinstance(value, InPlace):
            with torch.no_grad():
                group[key].copy_(value.value)
        else:
            group[key] = value
