"""The state of a binding, to stop a training here and go on with it there, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Module

from ...evaluator_schema.errors import BindError
from ..trials.seeding import random_state, set_random_state

_FORMAT = 1


def capture_state(
    model: Module,
    optimizers: Sequence[Any],
    lr_schedulers: Sequence[Any],
    added: Mapping[str, torch.Tensor],
    steps: int,
) -> dict[str, Any]:
    """Give a copy of everything that a training needs to go on.

    Args:
        model: The model.
        optimizers: Its optimizers.
        lr_schedulers: Its schedulers.
        added: Tensors that joined the optimizers, by name.
        steps: How many steps were made.

    Returns:
        A dict that `torch.save` can write, and `torch.load` reads by its defaults unless a scheduler's own
        state holds code: `model`, `optimizers`, `lr_schedulers`, `added`, `steps`, `random` (the states of
        the generators of torch, NumPy and Python) and `format`.
    """
    live = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "lr_schedulers": [scheduler.state_dict() for scheduler in lr_schedulers],
        "added": {name: tensor.detach() for name, tensor in added.items()},
    }
    return {
        "format": _FORMAT,
        **copy.deepcopy(live),
        "steps": steps,
        "random": _without_arrays(random_state()),
    }


def restore_state(
    state: Mapping[str, Any],
    model: Module,
    optimizers: Sequence[Any],
    lr_schedulers: Sequence[Any],
    added: Mapping[str, torch.Tensor],
) -> int:
    """Put a captured state into a model, its optimizers and schedulers, and the random generators.

    Returns:
        How many steps were done.

    Raises:
        BindError: The state is of another format, model, or of other optimizers, schedulers or shapes.
            Nothing has changed then.
    """
    _check(state, optimizers, lr_schedulers)
    _check_tensors("the model", state["model"], model.state_dict())
    _check_tensors("the parameters that joined", state["added"], added)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise BindError(f"the state is of another model: {error}") from error
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(copy.deepcopy(kept))
    with torch.no_grad():
        for name, tensor in added.items():
            tensor.copy_(state["added"][name])
    for scheduler, kept in zip(lr_schedulers, state["lr_schedulers"], strict=True):
        scheduler.load_state_dict(copy.deepcopy(kept))
    set_random_state(_with_arrays(state["random"]))
    return int(state["steps"])


def _check(state: Mapping[str, Any], optimizers: Sequence[Any], lr_schedulers: Sequence[Any]) -> None:
    missing = {"format", "model", "optimizers", "lr_schedulers", "added", "steps", "random"} - set(state)
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


def _check_tensors(what: str, kept: Mapping[str, Any], live: Mapping[str, Any]) -> None:
    """Compare names and shapes, before the first tensor is written."""
    names = sorted(kept.keys() ^ live.keys())
    if names:
        raise BindError(f"the state of {what} does not fit: only one of the two has {', '.join(names[:6])}")
    for name, tensor in live.items():
        if isinstance(tensor, torch.Tensor) and tensor.shape != kept[name].shape:
            raise BindError(
                f"the state of {what} does not fit: {name} has shape {tuple(kept[name].shape)} there, and "
                f"{tuple(tensor.shape)} here"
            )


def _without_arrays(state: dict[str, Any]) -> dict[str, Any]:
    """Give NumPy's array as a list, which `torch.load` reads without trusting the file."""
    if state["numpy"] is None:
        return state
    inner = {**state["numpy"]["state"], "key": state["numpy"]["state"]["key"].tolist()}
    return {**state, "numpy": {**state["numpy"], "state": inner}}


def _with_arrays(state: Mapping[str, Any]) -> Mapping[str, Any]:
    if state["numpy"] is None:
        return state
    import numpy as np

    inner = {**state["numpy"]["state"], "key": np.array(state["numpy"]["state"]["key"], dtype=np.uint32)}
    return {**state, "numpy": {**state["numpy"], "state": inner}}


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
