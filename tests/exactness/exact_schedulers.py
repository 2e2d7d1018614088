"""The scheduler forms of the table: all of torch, nested in each other, and several on one optimizer."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

Form = Callable[..., list[Any]]

FORMS: dict[str, Form] = {"none": lambda t, optimizer, model: []}


def form(name: str):
    def enter(function: Form) -> Form:
        FORMS[name] = function
        return function

    return enter


def one(cls, *args, **kwargs) -> Form:
    """Give the form of a single scheduler."""
    return lambda t, optimizer, model: [t(cls)(optimizer, *args, **kwargs)]


def per_group(optimizer, values):
    return list(itertools.islice(itertools.cycle(values), len(optimizer.param_groups)))


def halving(epoch):
    return 0.5 ** (epoch // 3)


def decaying(optimizer, rate):
    return lrs.ExponentialLR(optimizer, rate**2)


class Waves:
    """A callable object."""

    def __init__(self, length):
        self.length = length

    def __call__(self, epoch):
        return 1 + math.sin(epoch / self.length) / 2


class Counting:
    """A callable object that keeps state between its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, epoch):
        self.calls += 1
        return 1 / self.calls


class Sawtooth(lrs.LRScheduler):
    """A scheduler of another maker."""

    def __init__(self, optimizer, period, floor=0.1, last_epoch=-1):
        self.period, self.floor = period, floor
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        phase = (self.last_epoch % self.period) / self.period
        return [base * (self.floor + (1 - self.floor) * phase) for base in self.base_lrs]


class SlowStep(lrs.StepLR):
    """A subclass of a scheduler of torch."""

    def __init__(self, optimizer, slowness):
        super().__init__(optimizer, step_size=2 * slowness, gamma=0.7)


FORMS |= {
    "LambdaLR": one(lrs.LambdaLR, halving),
    "LambdaLR, lambda": one(lrs.LambdaLR, lr_lambda=lambda epoch: 0.9**epoch),
    "LambdaLR, partial": one(lrs.LambdaLR, functools.partial(math.pow, 0.8)),
    "LambdaLR, object": one(lrs.LambdaLR, Waves(3)),
    "MultiplicativeLR": one(lrs.MultiplicativeLR, lambda epoch: 0.95),
    "StepLR": one(lrs.StepLR, step_size=3, gamma=0.5),
    "MultiStepLR": one(lrs.MultiStepLR, [2, 5, 5, 9], gamma=0.3),
    "ConstantLR": one(lrs.ConstantLR, factor=0.25, total_iters=4),
    "LinearLR": one(lrs.LinearLR, 0.1, total_iters=6),
    "ExponentialLR": one(lrs.ExponentialLR, 0.9),
    "PolynomialLR": one(lrs.PolynomialLR, total_iters=10, power=2.0),
    "CosineAnnealingLR": one(lrs.CosineAnnealingLR, T_max=8, eta_min=1e-4),
    "CosineAnnealingWarmRestarts": one(lrs.CosineAnnealingWarmRestarts, T_0=3, T_mult=2),
    "ReduceLROnPlateau": one(lrs.ReduceLROnPlateau, factor=0.5, patience=1),
    "CyclicLR": one(lrs.CyclicLR, 0.001, 0.1, step_size_up=3, cycle_momentum=False),
    "CyclicLR, momentum": one(lrs.CyclicLR, 0.001, 0.1, step_size_up=3, mode="triangular2"),
    "CyclicLR, momentum bounds": one(
        lrs.CyclicLR, 0.001, 0.1, 2, 4, "exp_range", gamma=0.9, base_momentum=0.7, max_momentum=0.95
    ),
    "CyclicLR, scale_fn": one(
        lrs.CyclicLR, 0.001, 0.1, 2, scale_fn=lambda x: 1 / (5 ** (x * 0.0001)), cycle_momentum=False
    ),
    "OneCycleLR": one(lrs.OneCycleLR, max_lr=0.1, total_steps=20),
    "OneCycleLR, no momentum": one(
        lrs.OneCycleLR, 0.2, epochs=4, steps_per_epoch=4, anneal_strategy="linear", cycle_momentum=False
    ),
    "OneCycleLR, three phases": one(
        lrs.OneCycleLR, max_lr=0.1, total_steps=20, three_phase=True, cycle_momentum=False
    ),
    "SWALR": one(SWALR, swa_lr=0.05, anneal_epochs=4),
    "another maker's": one(Sawtooth, 4, floor=0.2),
    "a subclass": one(SlowStep, 2),
    "a factory": one(decaying, 0.8),
    "a partial": one(functools.partial(lrs.StepLR, step_size=2), gamma=0.6),
    "LRScheduler itself": one(lrs.LRScheduler),
}


@form("LambdaLR, one per group")
def _(t, optimizer, model):
    return [t(lrs.LambdaLR)(optimizer, per_group(optimizer, [halving, lambda epoch: 0.9**epoch]))]


@form("LambdaLR, one object for every group")
def _(t, optimizer, model):
    return [t(lrs.LambdaLR)(optimizer, [Counting()] * len(optimizer.param_groups))]


@form("MultiplicativeLR, one per group")
def _(t, optimizer, model):
    factors = [lambda epoch: 0.9, lambda epoch: 0.8 if epoch > 4 else 1.0]
    return [t(lrs.MultiplicativeLR)(optimizer, per_group(optimizer, factors))]


@form("MultiStepLR, generator")
def _(t, optimizer, model):
    return [t(lrs.MultiStepLR)(optimizer, milestones=(2**n for n in range(1, 4)), gamma=0.5)]


@form("ReduceLROnPlateau, min_lr per group")
def _(t, optimizer, model):
    minima = per_group(optimizer, [0.002, 0.004])
    return [t(lrs.ReduceLROnPlateau)(optimizer, "min", 0.3, 0, cooldown=1, min_lr=minima)]


@form("CyclicLR, bounds per group")
def _(t, optimizer, model):
    low, high = per_group(optimizer, [0.001, 0.002]), per_group(optimizer, [0.1, 0.05])
    return [t(lrs.CyclicLR)(optimizer, base_lr=low, max_lr=high, step_size_up=3, cycle_momentum=False)]


@form("OneCycleLR, max_lr per group")
def _(t, optimizer, model):
    highest = per_group(optimizer, [0.1, 0.05])
    return [t(lrs.OneCycleLR)(optimizer, highest, total_steps=15, cycle_momentum=False)]


@form("SWALR, list")
def _(t, optimizer, model):
    return [t(SWALR)(optimizer, per_group(optimizer, [0.05, 0.02]), 3, "linear")]


@form("StepLR, then SWALR and AveragedModel")
def _(t, optimizer, model):
    step = t(lrs.StepLR)(optimizer, 4)
    return [step, t(SWALR)(optimizer, 0.05), t(AveragedModel)(model)]


@form("AveragedModel, exponential")
def _(t, optimizer, model):
    return [
        t(AveragedModel)(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
        t(lrs.ExponentialLR)(optimizer, 0.9),
    ]


@form("ChainedScheduler")
def _(t, optimizer, model):
    parts = [t(lrs.ConstantLR)(optimizer, 0.2, 3), t(lrs.ExponentialLR)(optimizer, 0.9)]
    return [t(lrs.ChainedScheduler)(parts, optimizer)]


@form("ChainedScheduler, optimizer left out")
def _(t, optimizer, model):
    return [
        t(lrs.ChainedScheduler)([t(lrs.StepLR)(optimizer, 2, gamma=0.5), t(lrs.LambdaLR)(optimizer, halving)])
    ]


@form("SequentialLR")
def _(t, optimizer, model):
    parts = [t(lrs.LinearLR)(optimizer, 0.1, total_iters=4), t(lrs.CosineAnnealingLR)(optimizer, 8)]
    return [t(lrs.SequentialLR)(optimizer, parts, milestones=[4])]


@form("SequentialLR, its parts passed too")
def _(t, optimizer, model):
    parts = [t(lrs.LinearLR)(optimizer, 0.1, total_iters=4), t(lrs.ExponentialLR)(optimizer, 0.9)]
    return [t(lrs.SequentialLR)(optimizer, parts, [4]), parts[1]]


@form("SequentialLR, parts built in another order")
def _(t, optimizer, model):
    last = t(lrs.StepLR)(optimizer, 2)
    first = t(lrs.ConstantLR)(optimizer, 0.5, 3)
    return [t(lrs.SequentialLR)(optimizer, schedulers=[first, last], milestones=[3])]


@form("SequentialLR, parts not traced")
def _(t, optimizer, model):
    parts = [lrs.LinearLR(optimizer, 0.1, total_iters=4), lrs.ExponentialLR(optimizer, 0.9)]
    return [t(lrs.SequentialLR)(optimizer, parts, [4])]


@form("SequentialLR with ReduceLROnPlateau")
def _(t, optimizer, model):
    parts = [t(lrs.LinearLR)(optimizer), t(lrs.ReduceLROnPlateau)(optimizer)]
    return [t(lrs.SequentialLR)(optimizer, parts, [4])]


@form("SequentialLR in SequentialLR")
def _(t, optimizer, model):
    inner = t(lrs.SequentialLR)(
        optimizer, [t(lrs.StepLR)(optimizer, 1, 0.9), t(lrs.ExponentialLR)(optimizer, 0.8)], [2]
    )
    warmup = t(lrs.LinearLR)(optimizer, 0.2, total_iters=3)
    return [t(lrs.SequentialLR)(optimizer, [warmup, inner], [3])]


@form("SequentialLR in ChainedScheduler")
def _(t, optimizer, model):
    sequence = t(lrs.SequentialLR)(
        optimizer, [t(lrs.LinearLR)(optimizer, 0.2, total_iters=3), t(lrs.StepLR)(optimizer, 3)], (3,)
    )
    return [t(lrs.ChainedScheduler)([sequence, t(lrs.ExponentialLR)(optimizer, 0.95)])]


@form("ChainedScheduler in SequentialLR")
def _(t, optimizer, model):
    chain = t(lrs.ChainedScheduler)(
        [t(lrs.ConstantLR)(optimizer, 0.5, 2), t(lrs.MultiStepLR)(optimizer, (n for n in (3, 6)))]
    )
    return [t(lrs.SequentialLR)(optimizer, [chain, t(lrs.PolynomialLR)(optimizer, 6)], [5])]


@form("ChainedScheduler in ChainedScheduler")
def _(t, optimizer, model):
    inner = t(lrs.ChainedScheduler)([t(lrs.StepLR)(optimizer, 3), t(lrs.LinearLR)(optimizer, 0.5)])
    return [t(lrs.ChainedScheduler)([inner, t(lrs.CosineAnnealingLR)(optimizer, 6)])]


@form("two schedulers")
def _(t, optimizer, model):
    return [t(lrs.LinearLR)(optimizer, 0.1, total_iters=5), t(lrs.StepLR)(optimizer, 3, gamma=0.5)]


@form("two schedulers, passed in another order")
def _(t, optimizer, model):
    first = t(lrs.OneCycleLR)(optimizer, 0.1, 20, cycle_momentum=False)
    second = t(lrs.CosineAnnealingLR)(optimizer, 7)
    return [second, first]


@form("three schedulers, one of a metric")
def _(t, optimizer, model):
    return [
        t(lrs.LambdaLR)(optimizer, Waves(2)),
        t(lrs.CyclicLR)(optimizer, 0.01, 0.1, 2, cycle_momentum=False),
        t(lrs.ReduceLROnPlateau)(optimizer, patience=0),
    ]


@form("StepLR, last_epoch with initial_lr")
def _(t, optimizer, model):
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.05
    return [t(lrs.StepLR)(optimizer, 3, last_epoch=4)]


@form("StepLR, last_epoch without initial_lr")
def _(t, optimizer, model):
    return [t(lrs.StepLR)(optimizer, 3, last_epoch=4)]


@form("lr changed between two schedulers")
def _(t, optimizer, model):
    first = t(lrs.ExponentialLR)(optimizer, 0.9)
    for group in optimizer.param_groups:
        group["lr"] = 0.03
    return [first, t(lrs.LinearLR)(optimizer, 0.5)]


@form("untraced")
def _(t, optimizer, model):
    return [lrs.CosineAnnealingWarmRestarts(optimizer, 3, 2)]
