"""Telling the construction of an optimizer or scheduler that was not traced from its live state."""

from __future__ import annotations

import inspect
import itertools
import weakref
from collections import Counter
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .comparison import same
from .errors import CaptureError
from .recording import Record, TensorArgument, registry
from .signatures import signature_of

# What schedulers write into parameter groups; building the scheduler again writes it again.
_WRITTEN_BY_SCHEDULERS = frozenset(
    {"initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"}
)
# What a scheduler's own steps change in it.
_PROGRESS = frozenset(
    {
        "optimizer", "last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step",
        "best", "num_bad_epochs", "cooldown_counter", "mode_worse", "T_cur", "T_i", "_schedulers",
    }
)  # fmt: skip
# Where a scheduler keeps an argument under another name.
_KEPT_AS = {
    "lr_lambda": "lr_lambdas",
    "min_lr": "min_lrs",
    "schedulers": "_schedulers",
    "milestones": "_milestones",
    "swa_lr": "swa_lrs",
}
_earlier = itertools.count(-1, -1)


def adopt(value: Any) -> Record:
    """Give the record that a traced construction of `value` would have left.

    Raises:
        CaptureError: No construction gives exactly this object, or `value` is nothing of the kind.
    """
    if isinstance(value, Optimizer):
        return _adopt_optimizer(value)
    if isinstance(value, LRScheduler):
        return _adopt_scheduler(value)
    raise CaptureError(
        f"{type(value).__name__} is neither traced nor an optimizer or scheduler of torch; build it "
        f"with trace({type(value).__name__})(...)"
    )


def _refusal(value: Any, why: str) -> CaptureError:
    name = type(value).__name__
    return CaptureError(
        f"this {name} was not traced, and its construction cannot be told from its state: {why}; "
        f"build it with trace({name})(...)"
    )


def _adopt_optimizer(optimizer: Optimizer) -> Record:
    kind = type(optimizer)
    signature = signature_of(kind)
    accepted = list(signature.parameters) if signature else []
    if not accepted:
        raise _refusal(optimizer, "its class does not tell its arguments")
    kwargs = {
        name: optimizer.defaults[name]
        for name, parameter in signature.parameters.items()  # type: ignore[union-attr]  # accepted is not empty
        if name in optimizer.defaults and not same(optimizer.defaults[name], parameter.default)
    }
    groups = [_options_of(group, optimizer.defaults) for group in optimizer.param_groups]
    only = groups[0] if len(groups) == 1 and set(groups[0]) == {"params"} else None
    params = only["params"] if only else groups
    try:
        again = kind(params, **kwargs)
    except Exception as error:
        raise _refusal(optimizer, f"{kind.__name__} does not take them again ({error})") from error
    _compare_optimizers(optimizer, again)
    record = Record(kind, (_recorded(params),), kwargs, next(_earlier), "", 0, [])
    record.result = weakref.ref(optimizer)
    return record


def _options_of(group: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Give what of a group's options its constructor must have been told."""
    options = {
        key: value
        for key, value in group.items()
        if key not in _WRITTEN_BY_SCHEDULERS and key not in ("params", "param_names")
    }
    if "initial_lr" in group:
        options["lr"] = group["initial_lr"]
    changed = {
        key: value for key, value in options.items() if key not in defaults or not same(value, defaults[key])
    }
    params = list(group["params"])
    if "param_names" in group:
        params = list(zip(group["param_names"], params, strict=True))
    return {"params": params, **changed}


def _recorded(params: Any) -> Any:
    if isinstance(params, torch.Tensor):
        return TensorArgument(weakref.ref(params), None)
    if isinstance(params, dict):
        return {key: _recorded(value) if key == "params" else value for key, value in params.items()}
    if isinstance(params, list | tuple):
        return type(params)(_recorded(item) for item in params)
    return params


def _compare_optimizers(optimizer: Optimizer, again: Optimizer) -> None:
    if not same(optimizer.defaults, again.defaults):
        raise _refusal(optimizer, "its class does not keep all of its arguments")
    for index, (group, other) in enumerate(zip(optimizer.param_groups, again.param_groups, strict=True)):
        scheduled = "initial_lr" in group
        for key, value in group.items():
            if key in _WRITTEN_BY_SCHEDULERS or (scheduled and key in ("lr", "momentum", "betas")):
                continue
            if key not in other or (key != "params" and not same(value, other[key])):
                raise _refusal(optimizer, f"group {index} has {key}={value!r}, which no argument gives")
    if type(optimizer).__module__.startswith("torch.optim"):
        return
    own = set(vars(again)) - set(vars(torch.optim.SGD([torch.nn.Parameter(torch.empty(0))])))
    differing = [key for key in own if not same(vars(optimizer).get(key), vars(again)[key])]
    if differing:
        raise _refusal(optimizer, f"its attribute {sorted(differing)[0]!r} may stem from an argument")


def _adopt_scheduler(scheduler: LRScheduler) -> Record:
    kind = type(scheduler)
    signature = signature_of(kind)
    if signature is None:
        raise _refusal(scheduler, "its class does not tell its arguments")
    kwargs: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if name in ("last_epoch", "optimizer", "verbose"):
            continue
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise _refusal(scheduler, f"its class takes *{name}")
        kept = _KEPT_AS.get(name, name)
        kept = kept if kept in vars(scheduler) else name
        if kept not in vars(scheduler):
            if parameter.default is inspect.Parameter.empty:
                raise _refusal(scheduler, f"it does not keep its argument {name!r}")
            continue
        value = _argument(name, vars(scheduler)[kept])
        if not same(value, parameter.default):
            kwargs[name] = value
    optimizer = getattr(scheduler, "optimizer", None)
    inner = kwargs.get("schedulers", ())
    _compare_schedulers(scheduler, optimizer, kwargs)
    record = Record(
        kind,
        (),
        {
            **_with_optimizer(signature, registry.get(optimizer) or optimizer),

                **kwargs,
                **({"schedulers": [registry.get(item) or item for item in inner]} if inner else {})
            ,
        },
        0,
        "",
        0,
        [],
    )
    record.order = _AFTER + next(_later)
    record.result = weakref.ref(scheduler)
    return record


# Adopted schedulers stand behind everything that was traced, in the order of their adoption.
_AFTER = 1 << 40
_later = itertools.count()


def _with_optimizer(signature: inspect.Signature, optimizer: Any) -> dict[str, Any]:
    return {"optimizer": optimizer} if "optimizer" in signature.parameters else {}


def _argument(name: str, kept: Any) -> Any:
    """Undo what constructors do to an argument before they keep it."""
    if isinstance(kept, Counter):
        return sorted(kept.elements())
    if name in ("lr_lambda", "min_lr", "swa_lr") and isinstance(kept, list) and len(kept) == 1:
        return kept[0]
    return list(kept) if isinstance(kept, list) else kept


def _compare_schedulers(scheduler: LRScheduler, optimizer: Any, kwargs: dict[str, Any]) -> None:
    """Build the scheduler again on a stand-in and compare what does not change as it steps."""
    if "schedulers" in kwargs:  # its parts are adopted, and compared, one by one
        return
    stand_in = torch.optim.SGD(
        [
            {
                "params": [torch.nn.Parameter(torch.empty(0))],
                **{k: v for k, v in group.items() if k not in ("params", "param_names")},
                "lr": group.get("initial_lr", group["lr"]),
            }
            for group in optimizer.param_groups
        ],
        lr=1.0,
    )
    for group in stand_in.param_groups:
        for key in _WRITTEN_BY_SCHEDULERS:
            group.pop(key, None)
    try:
        again = type(scheduler)(optimizer=stand_in, **kwargs)  # type: ignore[call-arg]  # each class has its own
    except Exception as error:
        raise _refusal(scheduler, f"its class does not take it again ({error})") from error
    for key, value in vars(scheduler).items():
        if key not in _PROGRESS and not same(value, vars(again).get(key)):
            raise _refusal(scheduler, f"its attribute {key!r} may stem from an argument")
