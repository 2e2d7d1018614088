"""The optimizers of the table: all of torch, with options, subclasses and classes of other makers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import optim
from torch.optim import Optimizer

from rebind import trace


class Decayed(optim.SGD):
    """A subclass with an argument of its own."""

    def __init__(self, params, lr=0.1, *, strength=0.5, **options):
        super().__init__(params, lr=lr, weight_decay=strength / 10, **options)
        self.strength = strength

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(1 - self.strength / 100)


class SignDescent(Optimizer):
    """An optimizer of another maker: its first argument has another name, and it keeps buffers."""

    def __init__(self, weights, step_size=0.01, betas=(0.9, 0.99)):
        super().__init__(weights, {"lr": step_size, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                average = state.setdefault("average", torch.zeros_like(parameter))
                first, second = group["betas"]
                parameter.add_((average * first + parameter.grad * (1 - first)).sign(), alpha=-group["lr"])
                average.mul_(second).add_(parameter.grad, alpha=1 - second)


@trace
class Recorded(optim.AdamW):
    """A class under `@trace`."""

    def __init__(self, params, rate, *, scale=1.0):
        super().__init__(params, lr=rate * scale)


@dataclass(frozen=True)
class Choice:
    """An optimizer with its options, made anew for each use."""

    cls: Any
    options: Callable[[], dict[str, Any]] = field(default=dict)
    matrices_only: bool = False


OPTIMIZERS: dict[str, Choice] = {
    "Adadelta": Choice(optim.Adadelta, lambda: {"lr": 0.5, "rho": 0.8}),
    "Adafactor": Choice(optim.Adafactor, lambda: {"lr": 0.05, "eps": (None, 1e-3)}),
    "Adagrad": Choice(
        optim.Adagrad, lambda: {"lr": 0.05, "lr_decay": 0.01, "initial_accumulator_value": 0.1}
    ),
    "Adam": Choice(optim.Adam, lambda: {"lr": 0.01, "betas": (0.8, 0.95), "amsgrad": True}),
    "AdamW": Choice(optim.AdamW, lambda: {"lr": 0.01, "weight_decay": 0.1}),
    "Adamax": Choice(optim.Adamax, lambda: {"lr": 0.01, "betas": [0.8, 0.9]}),
    "ASGD": Choice(optim.ASGD, lambda: {"lr": 0.02, "t0": 4.0}),
    "LBFGS": Choice(optim.LBFGS, lambda: {"lr": 0.5, "max_iter": 3, "history_size": 4}),
    "Muon": Choice(optim.Muon, lambda: {"lr": 0.02, "momentum": 0.9, "ns_steps": 3}, matrices_only=True),
    "NAdam": Choice(optim.NAdam, lambda: {"lr": 0.01, "momentum_decay": 0.01}),
    "RAdam": Choice(optim.RAdam, lambda: {"lr": 0.01, "decoupled_weight_decay": True}),
    "RMSprop": Choice(optim.RMSprop, lambda: {"lr": 0.01, "momentum": 0.5, "centered": True}),
    "Rprop": Choice(optim.Rprop, lambda: {"lr": 0.01, "etas": (0.6, 1.1)}),
    "SGD": Choice(optim.SGD, lambda: {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "SparseAdam": Choice(optim.SparseAdam, lambda: {"lr": 0.01}),
    "SGD, plain": Choice(optim.SGD, lambda: {"lr": 0.1, "maximize": True}),
    "SGD, tensor lr": Choice(
        optim.SGD, lambda: {"lr": torch.tensor(0.05), "momentum": 0.9, "foreach": False}
    ),
    "AdamW, tensor lr": Choice(
        optim.AdamW, lambda: {"lr": torch.tensor(0.01, dtype=torch.float64), "foreach": False}
    ),
    "Adam, tensor betas": Choice(
        optim.Adam,
        lambda: {"lr": 0.01, "betas": (torch.tensor(0.8), torch.tensor(0.95)), "foreach": False},
    ),
    "a subclass of SGD": Choice(Decayed, lambda: {"lr": 0.05, "strength": 0.7, "momentum": 0.5}),
    "another maker's": Choice(SignDescent, lambda: {"step_size": 0.02, "betas": [0.8, 0.9]}),
    "a class under @trace": Choice(Recorded, lambda: {"rate": 0.02, "scale": 0.5}),
}
