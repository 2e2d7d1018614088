"""Importable things that specs of the tests refer to."""

from __future__ import annotations

import enum
import os
from typing import NamedTuple

import torch

from rebind import trace

system = os.system  # an alias that must not open the way to its home


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Power(enum.Flag):
    A = 1
    B = 2


class Pair(NamedTuple):
    first: object
    second: object


class Outer:
    class Inner:
        def method(self): ...


class Anything(torch.optim.SGD):
    """An optimizer that takes an argument of any kind, and leaves it alone."""

    def __init__(self, params, value=None, lr=0.1):
        super().__init__(params, lr=lr)
        self.value = value


@trace
class Decorated(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)


def train(model, optimizers, criterion, lr_schedulers=None, max_steps=None): ...


def evaluate(model):
    return 0.0


def criterion(input, target, weight=1.0):  # noqa: A002 - as torch names it
    return ((input - target) ** 2).mean() * weight


def halve(epoch):
    return 0.5**epoch


def make(params, rate):
    return torch.optim.SGD(params, lr=rate)
