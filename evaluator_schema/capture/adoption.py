"""Telling the construction of an optimizer or scheduler that was not traced from its live state."""

from __future__ import annotations

import functools
import inspect
import itertools
import types
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..checking.signatures import signature_of
from ..comparison import same
from ..errors import CaptureError
from ..tracing.recording import Record, Snapshot, TensorArgument, registry
from .adopted_arguments import Unknown, argument_of
from .standins import CYCLED, WRITTEN_BY_SCHEDULERS, stand_in_for, stand_in_parameters

# What a scheduler's own steps change in it.
_PROGRESS = frozenset(
    {
        "optimizer", "last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step",
        "best", "num_bad_epochs", "cooldown_counter", "mode_worse", "T_cur", "T_i", "_schedulers",
    }
)  # fmt: skip
# Where adopted objects stand among the traced: optimizers before all of them, schedulers behind.
_earlier = itertools.count(-1, -1)
_later = itertools.count(1 << 40)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def adopt(value: Any) -> Record:
    """Give the record that a traced construction of `value` would have left.

    A construction is only given if, done again on a stand-in, it leads to the same options, groups and
    attributes, apart from those that training changes.

    Raises:
        CaptureError: No construction gives exactly this object, or `value` is nothing of the kind.
    """
    if isinstance(value, Optimizer):
        return _adopt_optimizer(value)
    if isinstance(value, LRScheduler):
        return _adopt_scheduler(value)
    if isinstance(value, type | types.FunctionType | functools.partial):
        name = getattr(value, "__name__", type(value).__name__)
        raise CaptureError(f"{name} is not built yet: write trace({name})(...) and pass the result")
    raise CaptureError(
        f"{type(value).__name__} is neither traced nor an optimizer or scheduler of torch; build it "
        f"with trace({type(value).__name__})(...)"
    )


def refusal(value: Any, why: str) -> CaptureError:
    """Make the error that says why an object cannot be adopted, and what to do."""
    name = type(value).__name__
    return CaptureError(
        f"this {name} was not traced, and its construction cannot be told from its state: {why}; "
        f"build it with trace({name})(...)"
    )


def _adopt_optimizer(optimizer: Optimizer) -> Record:
    kind = type(optimizer)
    kwargs = _default_options(optimizer)
    groups = [_options_of(group, optimizer) for group in optimizer.param_groups]
    is_plain = len(groups) == 1 and set(groups[0]) == {"params"}
    params = groups[0]["params"] if is_plain else groups
    try:
        again = kind(stand_in_parameters(params), **kwargs)
    except Exception as error:
        raise refusal(optimizer, f"{kind.__name__} does not take them again ({error})") from error
    _compare_optimizers(optimizer, again)
    record = Record(
        kind,
        (_recorded(params),),
        {key: Snapshot().take(value) for key, value in kwargs.items()},
        next(_earlier),
        "",
        0,
        [],
    )
    record.result = weakref.ref(optimizer)
    return record


def _default_options(optimizer: Optimizer) -> dict[str, Any]:
    """Give the arguments behind an optimizer's defaults, without those that are the class's own."""
    signature = signature_of(type(optimizer))
    if signature is None:
        raise refusal(optimizer, "its class does not tell its arguments")
    given: dict[str, Any] = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind in _VARIADIC:
            raise refusal(optimizer, f"its class takes *{name}")
        if name in optimizer.defaults:
            value = optimizer.defaults[name]
        elif is_of_torch(type(optimizer)):
            continue
        else:
            value = _attribute(optimizer, name)
        if name == "lr" and isinstance(value, torch.Tensor):
            value = _undecayed(value, optimizer)
        if not same(value, parameter.default):
            given[name] = value
    return given


def _attribute(value: Any, name: str) -> Any:
    """Find where an object of the user's own class keeps an argument."""
    for kept in (name, f"_{name}"):
        if kept in vars(value):
            return vars(value)[kept]
    raise refusal(value, f"it does not keep its argument {name!r}")


def _undecayed(lr: torch.Tensor, optimizer: Optimizer) -> torch.Tensor:
    """Give the value that a tensor learning rate had before schedulers changed it in place."""
    for group in optimizer.param_groups:
        if group.get("lr") is lr and isinstance(group.get("initial_lr"), torch.Tensor):
            initial: torch.Tensor = group["initial_lr"]
            return initial
    return lr


def _options_of(group: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Give what of a group's options its constructor must have been told."""
    defaults = optimizer.defaults
    told: dict[str, Any] = {}
    for key, value in group.items():
        if key in ("params", "param_names") or key in WRITTEN_BY_SCHEDULERS:
            continue
        if key in CYCLED and "max_momentum" in group:  # the scheduler that cycles it sets it, once built
            continue
        if isinstance(value, torch.Tensor) and value is defaults.get(key):
            continue
        given = group["initial_lr"] if key == "lr" and "initial_lr" in group else value
        if key not in defaults or not same(given, defaults[key]):
            told[key] = given
    params = list(group["params"])
    if "param_names" in group:
        params = list(zip(group["param_names"], params, strict=True))
    return {"params": params, **told}


def _recorded(params: Any) -> Any:
    if isinstance(params, torch.nn.Parameter) or (isinstance(params, torch.Tensor) and params.requires_grad):
        return TensorArgument(weakref.ref(params), None)
    if isinstance(params, dict):
        return {
            key: _recorded(value) if key == "params" else Snapshot().take(value)
            for key, value in params.items()
        }
    if isinstance(params, list | tuple):
        return type(params)(_recorded(item) for item in params)
    return Snapshot().take(params)


def is_of_torch(kind: type) -> bool:
    """Tell whether torch itself defines a class, so that what its constructor does is known."""
    return kind.__module__.startswith("torch.optim")


def _compare_optimizers(optimizer: Optimizer, again: Optimizer) -> None:
    for key in {**optimizer.defaults, **again.defaults}:
        mine, other = optimizer.defaults.get(key), again.defaults.get(key)
        if not same(mine, other) and not (key == "lr" and isinstance(mine, torch.Tensor)):
            raise refusal(optimizer, f"no argument gives {key}={mine!r}")
    for index, (group, other) in enumerate(zip(optimizer.param_groups, again.param_groups, strict=True)):
        for key, value in group.items():
            scheduled = key in WRITTEN_BY_SCHEDULERS or (key in CYCLED and "max_momentum" in group)
            if scheduled or key == "params" or (key == "lr" and "initial_lr" in group):
                continue
            if key not in other or not same(value, other[key]):
                raise refusal(optimizer, f"group {index} has {key}={value!r}, which no argument gives")
    if is_of_torch(type(optimizer)):
        return
    inherited = vars(torch.optim.SGD([torch.nn.Parameter(torch.empty(0))]))
    for key in sorted({*vars(again), *vars(optimizer)} - set(inherited) - _BY_TRAINING):
        if not same(vars(optimizer).get(key), vars(again).get(key)):
            raise refusal(optimizer, f"its attribute {key!r} may stem from an argument")


# What schedulers and hooks leave in any optimizer.
_BY_TRAINING = frozenset({"step", "_opt_called", "_step_count", "_warned_capturable_if_run_uncaptured"})


def _adopt_scheduler(scheduler: LRScheduler) -> Record:
    kind = type(scheduler)
    signature = signature_of(kind)
    if signature is None:
        raise refusal(scheduler, "its class does not tell its arguments")
    kwargs: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in _VARIADIC:
            raise refusal(scheduler, f"its class takes *{name}")
        if name in ("last_epoch", "optimizer", "verbose"):
            continue
        try:
            value = argument_of(scheduler, name, parameter.default)
        except Unknown as error:
            raise refusal(scheduler, str(error)) from None
        if not same(value, parameter.default):
            kwargs[name] = value
    _compare_schedulers(scheduler, kwargs)
    arguments = {key: Snapshot().take(value) for key, value in kwargs.items() if key != "schedulers"}
    if "schedulers" in kwargs:
        arguments["schedulers"] = [registry.get(part) or part for part in kwargs["schedulers"]]
    if "optimizer" in signature.parameters and not _is_chained(scheduler):
        optimizer = scheduler.optimizer
        arguments = {"optimizer": registry.get(optimizer) or optimizer, **arguments}
    record = Record(kind, (), arguments, next(_later), "", 0, [])
    record.result = weakref.ref(scheduler)
    return record


def _is_chained(scheduler: LRScheduler) -> bool:
    """A chain finds its optimizer through its parts, and keeps none that it was given."""
    return isinstance(scheduler, torch.optim.lr_scheduler.ChainedScheduler)


def _compare_schedulers(scheduler: LRScheduler, kwargs: Mapping[str, Any]) -> None:
    """Build the scheduler again on a stand-in and compare what does not change as it steps."""
    if "schedulers" in kwargs:
        if not is_of_torch(type(scheduler)):
            raise refusal(scheduler, "its class combines schedulers in a way of its own")
        return  # its parts are adopted, and compared, one by one
    try:
        again = type(scheduler)(optimizer=stand_in_for(scheduler.optimizer), **kwargs)
    except Exception as error:
        raise refusal(scheduler, f"its class does not take it again ({error})") from error
    for key in sorted({*vars(scheduler), *vars(again)} - _PROGRESS):
        if not same(vars(scheduler).get(key), vars(again).get(key)):
            raise refusal(scheduler, f"its attribute {key!r} may stem from an argument")
