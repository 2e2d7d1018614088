"""A training function and an evaluating function that need no data."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Module

from .curves import step_once


def train(
    model: Module, optimizers: Any, criterion: Any, lr_schedulers: Any = None, max_steps: int | None = None
) -> None:
    """Train any model with made-up gradients, for three steps if nothing else is said."""
    del criterion
    for number in range(3 if max_steps is None else max_steps):
        step_once(model, _listed(optimizers), _listed(lr_schedulers), number)


def score(model: Module) -> float:
    """Score a model by the size of its weights: the smaller, the better."""
    with torch.no_grad():
        return -float(sum(parameter.double().square().sum() for parameter in model.parameters()))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
