"""Building constructions: in the order in which they were made, with the holes filled by a model."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch.nn import Module

from .construction import Construction, GroupChange, constructions_in
from .values import (
    Iterated,
    ModuleHole,
    ParameterHole,
    ParametersHole,
    Ref,
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
    for _, construction in constructions_in(list(constructions)):
        steps.append((construction.order, construction, None))
        steps += [(change.order, construction, change) for change in construction.changes]
    built: dict[int, Any] = {}
    for order, construction, change in sorted(steps, key=lambda step: step[0]):
        fill = _filler(filling, built)
        if change is None:
            args = [fill(value) for value in construction.args]
            kwargs = {key: fill(value) for key, value in construction.kwargs.items()}
            built[order] = construction.target(*args, **kwargs)
        else:
            _apply(built[construction.order], change.group, fill(change.options))
    return built


def _filler(filling: Filling, built: dict[int, Any]) -> Callable[[Any], Any]:
    """Make the function that copies a recorded value with its holes filled."""

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
            case torch.Tensor():
                return copy_tensor(value)
            case list() | tuple() | dict() | set() | frozenset():
                return map_container(value, fill)
        return copy_callable(value)

    return fill


def copy_callable(value: Any) -> Any:
    """Copy an object of the user's that can be called, since it may keep state between its calls."""
    if not callable(value) or isinstance(value, _STATELESS | type | Module):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - what cannot be copied is shared, as the user's own code would
        return value


_STATELESS = types.FunctionType | types.BuiltinFunctionType | types.MethodType


def _apply(optimizer: Any, group: int, options: dict[str, Any]) -> None:
    groups = optimizer.param_groups
    if group == len(groups):
        optimizer.add_param_group(options)
        return
    params = options.pop("params", None)
    if params is not None:
        groups[group]["params"][:] = params
    groups[group].update(options)
