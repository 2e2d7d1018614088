"""What optimizers and schedulers do to a model over a number of steps, as plain data."""

from __future__ import annotations

import functools
import inspect
import math
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from ..evaluator_schema.checking.signatures import signature_of
from .portraits import Portrait, explain_difference, portrait_of, weights_of

_Named = Sequence[tuple[str, torch.nn.Parameter]]


class Curve(NamedTuple):
    """A training, from what it started with to what came out.

    Attributes:
        start: Optimizers and schedulers before the first step, completely.
        steps: The options of every parameter group after each step. A step that raised ends them, with its
            error.
        end: Optimizers with their state, and schedulers, after the last step.
        weights: The model's weights after the last step.
    """

    start: Portrait
    steps: tuple[Portrait, ...]
    end: Portrait
    weights: Portrait

    @property
    def trained(self) -> bool:
        """Whether every step was done."""
        return not (self.steps and self.steps[-1][0] == "raised")


def curve_of(
    model: Module, optimizers: Sequence[Optimizer], lr_schedulers: Sequence[Any], steps: int = 12
) -> Curve:
    """Train a model with made-up gradients, and note everything that may tell two trainings apart.

    The gradient of each parameter is made from its name, the number of the step and its present value, so
    any model trains, without data, and two models with equal weights get equal gradients.

    Args:
        model: The model. Its weights change.
        optimizers: Each makes one step per step.
        lr_schedulers: Each makes one step after those.
        steps: How many.
    """
    start = portrait_of(model, *optimizers, *lr_schedulers)
    noted: list[Portrait] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of some orders of steps that are legal
        for number in range(steps):
            try:
                step_once(model, optimizers, lr_schedulers, number)
            except Exception as error:  # noqa: BLE001 - that a step raises is part of the curve
                noted.append(("raised", type(error).__name__, str(error)))
                break
            noted.append(tuple(map(_options, optimizers)))
    end = portrait_of(model, *optimizers, *lr_schedulers)
    return Curve(start, tuple(noted), end, weights_of(model))


def step_once(
    model: Module, optimizers: Sequence[Optimizer], lr_schedulers: Sequence[Any], number: int
) -> None:
    """Make one step with each optimizer, on made-up gradients, and then with each scheduler."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for optimizer in optimizers:
        sparse = isinstance(optimizer, torch.optim.SparseAdam)
        if _needs_closure(optimizer):
            optimizer.step(functools.partial(_loss, parameters, number, sparse=sparse))  # type: ignore[arg-type]  # LBFGS takes a tensor, too
        else:
            _set_gradients(parameters, number, sparse=sparse)
            optimizer.step()
    for scheduler in lr_schedulers:
        if isinstance(scheduler, AveragedModel):
            scheduler.update_parameters(model)
        else:
            advance(scheduler, number)


def advance(scheduler: Any, number: int) -> None:
    """Make one step of a learning-rate scheduler, with a made-up metric if it wants one."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(1.0 / (1 + min(number, 3)))  # better for three steps, then no more
    else:
        scheduler.step()


@functools.lru_cache(maxsize=4096)
def _noise(name: str, like: tuple[torch.Size, torch.dtype, torch.device]) -> torch.Tensor:
    shape, dtype, device = like
    waves = torch.arange(shape.numel(), dtype=torch.float64) + zlib.crc32(name.encode()) % 1000
    return waves.sin().to(device, dtype).reshape(shape)


def _pull(name: str, parameter: torch.Tensor, number: int) -> torch.Tensor:
    return _noise(name, (parameter.shape, parameter.dtype, parameter.device)) * math.cos(number)


def _set_gradients(parameters: _Named, number: int, *, sparse: bool) -> None:
    """Set the gradients of the loss `sum(w * w / 20 + w * noise * cos(number))`."""
    with torch.no_grad():
        for name, parameter in parameters:
            gradient = parameter / 10 + _pull(name, parameter, number)
            parameter.grad = gradient.to_sparse() if sparse else gradient


def _loss(parameters: _Named, number: int, *, sparse: bool) -> torch.Tensor:
    """Set those gradients, and give that loss."""
    _set_gradients(parameters, number, sparse=sparse)
    with torch.no_grad():
        parts = [((p / 20 + _pull(name, p, number)) * p).sum().float().cpu() for name, p in parameters]
    return torch.stack(parts).sum()


def _needs_closure(optimizer: Optimizer) -> bool:
    signature = signature_of(type(optimizer).step)
    closure = signature.parameters.get("closure") if signature else None
    return closure is not None and closure.default is inspect.Parameter.empty


def _options(optimizer: Optimizer) -> Portrait:
    return tuple(
        tuple(
            (key, _plain(value))
            for key, value in sorted(group.items())
            if key not in ("params", "param_names")
        )
        for group in optimizer.param_groups
    )


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return "tensor", str(value.dtype), repr(value.tolist())
    return repr(tuple(map(_plain, value))) if isinstance(value, tuple) else repr(value)


def explain_curves(direct: Curve, other: Curve) -> str:
    """Say where a curve departs from that of direct construction; empty where it does not."""
    for part in Curve._fields:
        found = explain_difference(getattr(direct, part), getattr(other, part), part)
        if found:
            return found
    return ""
