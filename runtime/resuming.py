"""The state of a binding, to stop a training here and go on with it there, to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Module

from ..evaluator_schema.errors import BindError
from .seeding import random_state, set_random_state

_FORMAT = 1


def capture_state(
    model: Module, optimizers: Sequence[Any], lr_schedulers: Sequence[Any], steps: int
) -> dict[str, Any]:
    """Give everything that a training needs to go on.

    Returns:
        A dict that `torch.save` can write: `model`, `optimizers`, `lr_schedulers`, `steps`, `random` (the
        states of the generators of torch, NumPy and Python) and `format`.
    """
    return {
        "format": _FORMAT,
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "lr_schedulers": [scheduler.state_dict() for scheduler in lr_schedulers],
        "steps": steps,
        "random": random_state(),
    }


def restore_state(
    state: Mapping[str, Any], model: Module, optimizers: Sequence[Any], lr_schedulers: Sequence[Any]
) -> int:
    """Put a captured state into a model, its optimizers and schedulers, and the random generators.

    Returns:
        How many steps were done.

    Raises:
        BindError: The state is of another format, or of other optimizers, schedulers or shapes.
    """
    _check(state, optimizers, lr_schedulers)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise BindError(f"the state is of another model: {error}") from error
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    for scheduler, kept in zip(lr_schedulers, state["lr_schedulers"], strict=True):
        scheduler.load_state_dict(kept)
    set_random_state(state["random"])
    return int(state["steps"])


def _check(state: Mapping[str, Any], optimizers: Sequence[Any], lr_schedulers: Sequence[Any]) -> None:
    missing = {"format", "model", "optimizers", "lr_schedulers", "steps", "random"} - set(state)
    if missing:
        raise BindError(f"this is no state of a binding: it lacks {', '.join(sorted(missing))}")
    if state["format"] != _FORMAT:
        raise BindError(
            f"the state has format {state['format']!r}, and this rebind reads {_FORMAT}; update rebind"
        )
    for name, live in (("optimizers", optimizers), ("lr_schedulers", lr_schedulers)):
        if len(state[name]) != len(live):
            raise BindError(f"the state has {len(state[name])} {name}, and this binding has {len(live)}")
    for index, (optimizer, kept) in enumerate(zip(optimizers, state["optimizers"], strict=True)):
        problem = _misfit(optimizer, kept)
        if problem:
            raise BindError(f"the state of optimizer {index} does not fit: {problem}")


def _misfit(optimizer: Any, kept: Mapping[str, Any]) -> str | None:
    """Compare sizes and shapes, which `load_state_dict` of an optimizer takes as they come."""
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    kept_sizes = [len(group["params"]) for group in kept["param_groups"]]
    if sizes != kept_sizes:
        return f"its groups have {kept_sizes} parameters, and the optimizer's have {sizes}"
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entries in kept["state"].items():
        for name, value in entries.items():
            shape = tuple(parameters[index].shape)
            if (
                isinstance(value, torch.Tensor)
                and value.dim() == len(shape) > 0
                and tuple(value.shape) != shape
            ):
                return (
                    f"{name} of parameter {index} has shape {tuple(value.shape)}, and the parameter {shape}"
                )
    return None
