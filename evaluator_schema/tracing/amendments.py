"""What was done to an optimizer's parameter groups after its construction, noticed by comparison."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.optim import Optimizer

from ..comparison import same
from ..values import InPlace, copy_tensor, map_container
from .recording import Amendment, NotedGroups, Record, Snapshot, TensorArgument, tick

# What schedulers write into parameter groups while they run.
SCHEDULED = frozenset(
    {
        "lr",
        "initial_lr",
        "max_lr",
        "min_lr",
        "swa_lr",
        "momentum",
        "betas",
        "base_momentum",
        "max_momentum",
    }
)
# Of these, what they move in a group that has `max_momentum`, and in no other.
_CYCLED = frozenset({"momentum", "betas"})
_PARAMETERS = ("params", "param_names")
# What cannot change without becoming another object. Nearly every option is one of these, and each is
# looked at whenever a scheduler is traced.
_FIXED = frozenset({int, float, bool, str, type(None)})


def note_groups(record: Record, optimizer: Optimizer) -> None:
    """Remember the parameter groups as they are now."""
    record.groups = NotedGroups(
        [
            {
                key: (value, value) if type(value) in _FIXED else _noted(key, value)
                for key, value in group.items()
            }
            for group in optimizer.param_groups
        ],
        dict(optimizer.defaults),
        has_scheduler(optimizer),
    )


def has_scheduler(optimizer: Optimizer) -> bool:
    """Tell whether a scheduler was ever built on an optimizer, by the mark that torch leaves."""
    return hasattr(optimizer.step, "_wrapped_by_lr_sched")


def has_moved(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer with a scheduler was stepped, so that the scheduler may have been, too."""
    return has_scheduler(optimizer) and getattr(optimizer, "_opt_called", False)


def changed_by_hand(optimizer: Optimizer, schedulers: Iterable[Any]) -> str | None:
    """Say which learning rate is none that a scheduler of the optimizer has set, or give None."""
    known = [
        s._last_lr
        for s in schedulers
        if getattr(s, "optimizer", None) is optimizer and hasattr(s, "_last_lr")
    ]
    for index, group in enumerate(optimizer.param_groups if known else ()):
        set_here = [rates[index] for rates in known if index < len(rates)]
        if set_here and not any(same(group["lr"], rate) for rate in set_here):
            return (
                f"the learning rate of group {index} of this {type(optimizer).__name__} was changed to "
                f"{group['lr']} after a scheduler had set it to {set_here[-1]}, and it cannot be told when; "
                "change it before training, on an optimizer whose schedulers are traced"
            )
    return None


def optimizers_behind(records: list[Record]) -> list[tuple[Record, Optimizer]]:
    """Find the traced optimizers that some records lead to, each with its record."""
    found: dict[int, tuple[Record, Optimizer]] = {}
    pending, seen = list(records), set[int]()
    while pending:
        record = pending.pop()
        if id(record) in seen:
            continue
        seen.add(id(record))
        result = record.result()
        if isinstance(result, Optimizer):
            found[record.order] = (record, result)
        pending += _records_in([*record.args, *record.kwargs.values()])
    return [found[order] for order in sorted(found)]


def _records_in(values: list[Any]) -> list[Record]:
    inside: list[Record] = []
    for value in values:
        if isinstance(value, Record):
            inside.append(value)
        elif isinstance(value, list | tuple):
            inside += _records_in(list(value))
    return inside


def notice(record: Record, optimizer: Optimizer, *, scheduled: bool = False) -> None:
    """Record what changed in the groups since they were last noted, and note them again if anything did.

    Args:
        record: The optimizer's record.
        optimizer: The live optimizer.
        scheduled: Whether changes of `SCHEDULED` options are the work of a scheduler that will be built
            again, and so no amendment.
    """
    found = changes(record, optimizer, scheduled=scheduled)
    if found:
        record.amendments += found
        note_groups(record, optimizer)


def changes(record: Record, optimizer: Optimizer, *, scheduled: bool = False) -> list[Amendment]:
    """List what changed in the groups since they were last noted, group by group."""
    noted = record.groups
    if noted is None:
        return []
    refused = _refusals(noted, optimizer)
    if refused is not None:
        return [Amendment(tick(), 0, {}, refused)]
    found = []
    for index, group in enumerate(optimizer.param_groups):
        if index < len(noted.groups):
            options = dict(_changed(group, noted.groups[index], scheduled=scheduled))
        else:
            options = _added(_unscheduled(group, noted.defaults) if scheduled else group, noted.defaults)
        if options:
            found.append(Amendment(tick(), index, options))
    return found


def _refusals(noted: NotedGroups, optimizer: Optimizer) -> str | None:
    """Say what was done that no option tells, or give None."""
    name = type(optimizer).__name__
    if len(optimizer.param_groups) < len(noted.groups):
        return (
            f"parameter groups of this {name} were removed after its construction, which cannot be recorded; "
            "construct it without them"
        )
    for index, (group, before) in enumerate(zip(optimizer.param_groups, noted.groups, strict=False)):
        lost = [key for key in before if key not in group]
        if lost:
            return (
                f"{lost[0]!r} was deleted from group {index} of this {name} after its construction, which "
                "cannot be recorded; set it to another value instead"
            )
    defaults = optimizer.defaults
    changed = [
        key
        for key in {**noted.defaults, **defaults}
        if not _unchanged(defaults.get(key), noted.defaults.get(key))
    ]
    if changed:
        return (
            f"the default {changed[0]!r} of this {name} was changed after its construction, which cannot be "
            "recorded; pass it to the constructor, or set it in the groups"
        )
    return None


def _changed(
    group: dict[str, Any], before: dict[str, tuple[Any, Any]], *, scheduled: bool
) -> Iterator[tuple[str, Any]]:
    """Walk the options of a group that changed, as recorded values."""
    if scheduled and "initial_lr" not in before and "initial_lr" in group:
        first = group["initial_lr"]
        if not same(first, before["lr"][1]):
            yield "lr", Snapshot().take(first)
    for key, value in group.items():
        held, then = before.get(key, _NEVER)
        if value is held and type(value) in _FIXED:
            continue
        if scheduled and key in SCHEDULED and (key not in _CYCLED or "max_momentum" in group):
            continue
        if key == "params":
            if [id(parameter) for parameter in value] != then:
                yield key, _parameters(value)
        elif isinstance(value, torch.Tensor) and value is held:
            if not same(value, then):
                yield key, InPlace(copy_tensor(value))
        elif not _unchanged(value, then):
            # In a container that stayed, what changed is a tensor inside: its value now is what counts.
            yield key, _copied(value) if value is held else Snapshot().take(value)


def _unscheduled(group: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Give a group as it was before its schedulers were built."""
    before = {k: v for k, v in group.items() if k not in SCHEDULED or k in ("lr", *_CYCLED)}
    if "initial_lr" in group and group["lr"] is not defaults.get("lr"):
        before["lr"] = group["initial_lr"]
    return before


def _added(group: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Give what `add_param_group` was told: the optimizer's very own defaults were filled in by itself."""
    parameters = _parameters(group["params"])
    if "param_names" in group:
        parameters = list(zip(group["param_names"], parameters, strict=True))
    told = {
        key: Snapshot().take(value)
        for key, value in group.items()
        if key not in _PARAMETERS and not (key in defaults and defaults[key] is value)
    }
    return {"params": parameters, **told}


def _noted(key: str, value: Any) -> tuple[Any, Any]:
    if key == "params":
        return None, [id(parameter) for parameter in value]
    return value, _copied(value)


def _copied(value: Any) -> Any:
    return copy_tensor(value) if isinstance(value, torch.Tensor) else map_container(value, _copied)


def _unchanged(value: Any, then: Any) -> bool:
    if value is then and type(value) in _FIXED:
        return True
    return isinstance(value, torch.Tensor) == isinstance(then, torch.Tensor) and same(value, then)


def _parameters(parameters: list[torch.Tensor]) -> list[Any]:
    return [TensorArgument(weakref.ref(parameter), None) for parameter in parameters]


class _Absent:
    """What an option was before there was one."""


_NEVER = (_Absent(), _Absent())
