"""Strategies for learning-rate schedulers of torch, nested in each other to any depth."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

# Makes a scheduler for an optimizer, given `trace` or nothing to put around what is called.
Make = Callable[[Callable[[Any], Any], Any], Any]

_FACTORS = st.sampled_from([0.1, 0.5, 0.9])
_COUNTS = st.integers(1, 6)


def halved(step: int) -> float:
    """Halve the learning rate every third step."""
    return 0.5 ** (step // 3)


def waved(step: int, *, length: float) -> float:
    """Let the learning rate swing."""
    return 1 + math.sin(step / length) / 2


class Counted:
    """A schedule that keeps state: it depends on how often it was called."""

    def __init__(self) -> None:
        self.calls: int = 0

    def __call__(self, step: int) -> float:
        """Count, and give a factor."""
        self.calls += 1
        return 1 / (self.calls + step)


_SCHEDULES: st.SearchStrategy[Callable[[], Callable[[int], float]]] = st.sampled_from(
    [lambda: halved, lambda: functools.partial(waved, length=2.5), Counted, lambda: lambda step: 0.9**step]
)


def _called(target: Any, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Make]:
    """Give the strategy of `target(optimizer, ...)`, with any of the options left out."""
    return st.fixed_dictionaries({}, optional=options).map(
        lambda drawn: lambda t, optimizer: t(target)(optimizer, **drawn)
    )


def scheduler_plans(groups: int) -> st.SearchStrategy[Make]:
    """Draw how a scheduler is made, for optimizers with this many groups."""
    return st.recursive(_single(groups), _nested, max_leaves=4) | _of_metric()


def _single(groups: int) -> st.SearchStrategy[Make]:
    return st.one_of(
        _functions(lrs.LambdaLR, groups),
        _functions(lrs.MultiplicativeLR, groups),
        _milestones(),
        _required(lrs.StepLR, {"step_size": _COUNTS}, gamma=_FACTORS),
        _called(lrs.ConstantLR, factor=_FACTORS, total_iters=_COUNTS),
        _called(lrs.LinearLR, start_factor=_FACTORS, end_factor=_FACTORS, total_iters=_COUNTS),
        _required(lrs.ExponentialLR, {"gamma": _FACTORS}),
        _called(lrs.PolynomialLR, total_iters=_COUNTS, power=st.sampled_from([1.0, 2.0])),
        _required(lrs.CosineAnnealingLR, {"T_max": _COUNTS}, eta_min=st.just(1e-4)),
        _required(lrs.CosineAnnealingWarmRestarts, {"T_0": _COUNTS}, T_mult=st.integers(1, 2)),
        _required(
            lrs.CyclicLR,
            {"base_lr": st.just(0.001), "max_lr": st.just(0.1), "cycle_momentum": st.booleans()},
            step_size_up=_COUNTS,
            mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
        ),
        _required(
            lrs.OneCycleLR,
            {"max_lr": st.just(0.1), "total_steps": st.just(40), "cycle_momentum": st.booleans()},
            three_phase=st.booleans(),
        ),
        _required(SWALR, {"swa_lr": st.just(0.05)}, anneal_epochs=_COUNTS),
    )


def _required(
    target: Any, required: dict[str, st.SearchStrategy[Any]], **options: st.SearchStrategy[Any]
) -> st.SearchStrategy[Make]:
    return st.fixed_dictionaries(required, optional=options).map(
        lambda drawn: lambda t, optimizer: t(target)(optimizer, **drawn)
    )


@st.composite
def _functions(draw: st.DrawFn, target: Any, groups: int) -> Make:
    """Draw a scheduler of functions: one for all groups, one for each, or one that all share."""
    if draw(st.booleans()):
        make = draw(_SCHEDULES)
        shared = draw(st.booleans())
        return lambda t, optimizer: t(target)(optimizer, [make()] * groups if shared else make())
    makes = [draw(_SCHEDULES) for _ in range(groups)]
    return lambda t, optimizer: t(target)(optimizer, [make() for make in makes])


@st.composite
def _milestones(draw: st.DrawFn) -> Make:
    milestones, gamma = draw(st.lists(_COUNTS, max_size=4)), draw(_FACTORS)
    iterator = draw(st.booleans())

    def make(t: Callable[[Any], Any], optimizer: Any) -> Any:
        given = (step for step in milestones) if iterator else list(milestones)
        return t(lrs.MultiStepLR)(optimizer, given, gamma=gamma)

    return make


def _of_metric() -> st.SearchStrategy[Make]:
    """Draw the scheduler that is stepped with a metric, and therefore stands in no other."""
    return _called(
        lrs.ReduceLROnPlateau, factor=_FACTORS, patience=st.integers(0, 2), cooldown=st.integers(0, 1)
    )


def _nested(inner: st.SearchStrategy[Make]) -> st.SearchStrategy[Make]:
    return _sequences(inner) | _chains(inner)


@st.composite
def _sequences(draw: st.DrawFn, inner: st.SearchStrategy[Make]) -> Make:
    parts = draw(st.lists(inner, min_size=1, max_size=3))
    milestones = sorted(draw(st.sets(_COUNTS, min_size=len(parts) - 1, max_size=len(parts) - 1)))
    backwards = draw(st.booleans())

    def make(t: Callable[[Any], Any], optimizer: Any) -> Any:
        built = [part(t, optimizer) for part in (parts[::-1] if backwards else parts)]
        return t(lrs.SequentialLR)(optimizer, built[::-1] if backwards else built, list(milestones))

    return make


@st.composite
def _chains(draw: st.DrawFn, inner: st.SearchStrategy[Make]) -> Make:
    parts = draw(st.lists(inner, min_size=1, max_size=3))
    told = draw(st.booleans())

    def make(t: Callable[[Any], Any], optimizer: Any) -> Any:
        built = [part(t, optimizer) for part in parts]
        return t(lrs.ChainedScheduler)(built, optimizer) if told else t(lrs.ChainedScheduler)(built)

    return make
