"""Where the schedulers of torch keep their arguments, and how to get them back."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import SWALR

# Where a scheduler keeps an argument under another name.
_KEPT_AS = {
    "lr_lambda": "lr_lambdas",
    "schedulers": "_schedulers",
    "milestones": "_milestones",
    "anneal_strategy": "_anneal_strategy",
    "base_lr": "base_lrs",
    "max_lr": "max_lrs",
    "base_momentum": "base_momentums",
    "max_momentum": "max_momentums",
    "scale_fn": "_scale_fn_custom",
}
# Arguments that may be one value, or one for each parameter group.
_PER_GROUP = frozenset(
    {"lr_lambda", "min_lr", "swa_lr", "base_lr", "max_lr", "base_momentum", "max_momentum"}
)


class Unknown(Exception):  # noqa: N818 - an answer, which never leaves the room
    """An argument that the live object does not tell."""


def argument_of(scheduler: LRScheduler, name: str, default: Any) -> Any:
    """Give an argument of a scheduler's constructor, or `default` where it must have been that.

    Raises:
        Unknown: The scheduler does not keep it.
    """
    if isinstance(scheduler, OneCycleLR):
        raise Unknown("it keeps the phases of its cycle, and not the arguments they were computed from")
    if isinstance(scheduler, CyclicLR) and name in ("step_size_up", "step_size_down"):
        return _half_cycle(scheduler, name)
    if isinstance(scheduler, ReduceLROnPlateau) and name == "min_lr":
        return scheduler.min_lrs if scheduler.default_min_lr is None else scheduler.default_min_lr
    if isinstance(scheduler, SWALR) and name == "swa_lr":
        return _one_or_many([group.get("swa_lr") for group in scheduler.optimizer.param_groups])
    state = vars(scheduler)
    for kept in (_KEPT_AS.get(name, name), name, f"_{name}"):
        if kept in state:
            return _as_given(name, state[kept])
    if default is inspect.Parameter.empty or not type(scheduler).__module__.startswith("torch.optim"):
        raise Unknown(f"it does not keep its argument {name!r}")
    return default


def _as_given(name: str, kept: Any) -> Any:
    """Undo what constructors do to an argument before they keep it."""
    if isinstance(kept, Counter):
        return sorted(kept.elements())
    if isinstance(kept, list):
        return _one_or_many(kept) if name in _PER_GROUP else list(kept)
    return kept


def _one_or_many(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _half_cycle(scheduler: CyclicLR, name: str) -> float:
    """Undo `total_size = up + down` and `step_ratio = up / total_size`, where that has one answer."""
    total, ratio = scheduler.total_size, scheduler.step_ratio
    for up in (float(round(ratio * total)), ratio * total):
        if up / total == ratio and up + (total - up) == total:
            half = up if name == "step_size_up" else total - up
            return int(half) if half.is_integer() else half
    raise Unknown("its step sizes do not follow from what it keeps")
