"""What was done to an optimizer's parameter groups after its construction, noticed by comparison."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.optim import Optimizer

from .comparison import same
from .recording import Amendment, Record, Snapshot, TensorArgument, tick
from .values import copy_tensor

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


def note_groups(record: Record, optimizer: Optimizer) -> None:
    """Remember the parameter groups as they are now."""
    record.groups = [_state_of(group) for group in optimizer.param_groups]


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
    """Record what changed in the groups since they were last noted, and note them again.

    Args:
        record: The optimizer's record.
        optimizer: The live optimizer.
        scheduled: Whether changes of `SCHEDULED` options are the work of a scheduler that will be built
            again, and so no amendment.
    """
    for index, options in changes(record, optimizer, scheduled=scheduled):
        record.amendments.append(Amendment(tick(), index, options))
    note_groups(record, optimizer)


def changes(
    record: Record, optimizer: Optimizer, *, scheduled: bool = False
) -> list[tuple[int, dict[str, Any]]]:
    """List the groups that changed since they were last noted, with the options that did."""
    before = record.groups or []
    found: list[tuple[int, dict[str, Any]]] = []
    for index, group in enumerate(optimizer.param_groups):
        if index >= len(before):
            found.append((index, _recorded(group)))
            continue
        changed = {
            key: value
            for key, value in group.items()
            if key != "params"
            and not (scheduled and key in SCHEDULED)
            and (key not in before[index] or not same(value, before[index][key]))
        }
        if before[index]["params"] != [id(parameter) for parameter in group["params"]]:
            changed["params"] = group["params"]
        if changed:
            found.append((index, _recorded(changed)))
    return found


def _state_of(group: dict[str, Any]) -> dict[str, Any]:
    state = {
        key: copy_tensor(value) if isinstance(value, torch.Tensor) else value for key, value in group.items()
    }
    state["params"] = [id(parameter) for parameter in group["params"]]
    return state


def _recorded(options: dict[str, Any]) -> dict[str, Any]:
    recorded = {key: Snapshot().take(value) for key, value in options.items() if key != "params"}
    if "params" in options:
        recorded["params"] = [TensorArgument(weakref.ref(p), None) for p in options["params"]]
    return recorded
