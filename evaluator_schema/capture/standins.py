"""Stand-ins on which a construction is tried, so that the live objects are never touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

# What schedulers write into parameter groups; building the scheduler again writes it again.
WRITTEN_BY_SCHEDULERS = frozenset(
    {"initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum"}
)
# What CyclicLR and OneCycleLR move along with the learning rate, in a group that has `max_momentum`.
CYCLED = frozenset({"momentum", "betas"})


class _StandIn(Optimizer):
    """An optimizer with the groups and defaults of another, and parameters of no use."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # it is never called
        """Do nothing."""


def stand_in_for(optimizer: Optimizer) -> Optimizer:
    """Give an optimizer as schedulers saw this one when the first of them was built."""
    groups = [
        {"params": [torch.nn.Parameter(torch.empty(0))], **_before_schedulers(group, optimizer.defaults)}
        for group in optimizer.param_groups
    ]
    return _StandIn(groups, dict(optimizer.defaults))


def _before_schedulers(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    before = {
        key: value
        for key, value in group.items()
        if key not in ("params", "param_names") and key not in WRITTEN_BY_SCHEDULERS
    }
    if "initial_lr" in group:
        before["lr"] = group["initial_lr"]
    if "max_momentum" in group:
        before.update({key: defaults[key] for key in CYCLED if key in defaults})
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in before.items()}


def stand_in_parameters(params: Any) -> Any:
    """Copy what an optimizer is given, with parameters of the same shapes that occupy no memory."""
    known: dict[int, torch.nn.Parameter] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) not in known:
                known[id(value)] = _empty_like(value)
            return known[id(value)]
        if isinstance(value, dict):
            return {key: copied(item) if key == "params" else item for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(copied(item) for item in value)
        return value

    return copied(params)


def _empty_like(tensor: torch.Tensor) -> torch.nn.Parameter:
    scalar = torch.zeros((), dtype=tensor.dtype, device=tensor.device)
    return torch.nn.Parameter(scalar.expand(tensor.shape), requires_grad=tensor.requires_grad)
