"""Whether untraced schedulers can be put among their siblings, given that nobody saw when they were built."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from ..comparison import same
from ..errors import CaptureError
from ..tracing.recording import ModuleArgument, Record, TensorArgument, registry
from ..values import Iterated, copy_tensor, map_container
from .adoption import adopt, refusal
from .standins import stand_in_for

# How many orders are tried; schedulers that allow for more are refused.
_MOST_ORDERS = 200


def unplaceable(schedulers: Iterable[Any]) -> list[CaptureError]:
    """Say which untraced optimizers and schedulers could not be built again exactly as they were.

    Siblings act on the optimizer they share as they are built. Where one of them was not traced, every
    order that is possible is tried on a stand-in: if all lead to the same state, any of them is right.

    Args:
        schedulers: The live schedulers of one evaluator, traced or not.
    """
    return list(_problems(schedulers))


def _problems(schedulers: Iterable[Any]) -> Iterator[CaptureError]:
    for optimizer, siblings in _by_optimizer(schedulers):
        if registry.get(optimizer) is None:
            yield from _lost_options(optimizer, siblings)
        untraced = [sibling for sibling in siblings if registry.get(sibling) is None]
        if untraced and len(siblings) > 1 and not _order_is_free(optimizer, siblings):
            yield refusal(
                untraced[0],
                f"it shares its {type(optimizer).__name__} with other schedulers, and what they do depends "
                "on the order in which they were built",
            )


def _by_optimizer(schedulers: Iterable[Any]) -> list[tuple[Optimizer, list[LRScheduler]]]:
    """Group schedulers, and those inside them, by what they drive; parts come before what holds them."""
    found: dict[int, tuple[Optimizer, list[LRScheduler]]] = {}
    for scheduler in schedulers:
        for one in _with_parts(scheduler):
            optimizer = getattr(one, "optimizer", None)
            if isinstance(optimizer, Optimizer):
                siblings = found.setdefault(id(optimizer), (optimizer, []))[1]
                if not any(one is other for other in siblings):
                    siblings.append(one)
    return list(found.values())


def _with_parts(scheduler: Any) -> Iterator[LRScheduler]:
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _with_parts(part)
    if isinstance(scheduler, LRScheduler):
        yield scheduler


def _lost_options(optimizer: Optimizer, siblings: list[LRScheduler]) -> Iterator[CaptureError]:
    """Find options that a scheduler overwrote, and that no construction of this evaluator writes again."""
    cyclic = any(isinstance(sibling, CyclicLR | OneCycleLR) for sibling in siblings)
    plateau = any(map(_may_have_reduced, siblings))
    for index, group in enumerate(optimizer.param_groups):
        if "max_momentum" in group and not cyclic:
            yield refusal(optimizer, f"the momentum of group {index} was cycled by a scheduler")
        if plateau and "initial_lr" not in group and not same(group["lr"], optimizer.defaults.get("lr")):
            yield refusal(optimizer, f"the learning rate of group {index} may have been reduced since")


def _may_have_reduced(scheduler: LRScheduler) -> bool:
    """A plateau leaves no mark on what it reduces; it needs more steps than its patience for that."""
    return isinstance(scheduler, ReduceLROnPlateau) and scheduler.last_epoch > scheduler.patience


def reduced_by_plateaus(schedulers: Iterable[Any]) -> set[int]:
    """Give the ids of the optimizers whose learning rate a plateau among these may have reduced."""
    return {
        id(optimizer)
        for optimizer, siblings in _by_optimizer(schedulers)
        if any(map(_may_have_reduced, siblings))
    }


def _order_is_free(optimizer: Optimizer, siblings: list[LRScheduler]) -> bool:
    try:
        records = {id(s): registry.get(s) or adopt(s) for s in siblings}
        orders = list(itertools.islice(_orders(siblings), _MOST_ORDERS + 1))
        if len(orders) > _MOST_ORDERS:
            return False
        states = [_state_after(optimizer, order, records) for order in orders]
    except CaptureError:  # told where the scheduler itself is captured
        return True
    except Exception:  # noqa: BLE001 - what cannot be tried cannot be told to be free
        return False
    return all(same(states[0], state) for state in states[1:])


def _orders(siblings: list[LRScheduler]) -> Iterator[list[LRScheduler]]:
    """Walk the orders that keep parts before wholes, and traced siblings as they were traced."""
    if not siblings:
        yield []
        return
    for last in siblings:
        others = [sibling for sibling in siblings if sibling is not last]
        if not any(_comes_before(last, other) for other in others):
            for order in _orders(others):
                yield [*order, last]


def _comes_before(first: LRScheduler, second: LRScheduler) -> bool:
    if any(part is first for part in getattr(second, "_schedulers", ())):
        return True
    mine, other = registry.get(first), registry.get(second)
    return mine is not None and other is not None and mine.order < other.order


def _state_after(optimizer: Optimizer, order: list[LRScheduler], records: dict[int, Record]) -> Any:
    stand_in = stand_in_for(optimizer)
    built: dict[int, Any] = {id(optimizer): stand_in}
    for scheduler in order:
        record = records[id(scheduler)]
        arguments = [_filled(value, built) for value in record.args]
        options = {key: _filled(value, built) for key, value in record.kwargs.items()}
        built[id(scheduler)] = record.target(*arguments, **options)
    groups = [{k: v for k, v in group.items() if k != "params"} for group in stand_in.param_groups]
    # What a part last set is only a report: the whole that holds it decides when it sets anything next.
    parts = {id(part) for scheduler in order for part in getattr(scheduler, "_schedulers", ())}
    states = [
        {
            key: value
            for key, value in vars(built[id(scheduler)]).items()
            if key not in ("optimizer", "_schedulers") and not (key == "_last_lr" and id(scheduler) in parts)
        }
        for scheduler in sorted(order, key=id)
    ]
    return groups, states


def _filled(value: Any, built: dict[int, Any]) -> Any:
    if isinstance(value, Record):
        return built[id(value.result())]
    if isinstance(value, Optimizer | LRScheduler):
        return built[id(value)]
    if isinstance(value, TensorArgument):
        return None if value.value is None else copy_tensor(value.value)
    if isinstance(value, Iterated):
        return iter(_filled(value.items, built))
    if isinstance(value, ModuleArgument | torch.Tensor):
        return value
    return map_container(value, lambda item: _filled(item, built))
