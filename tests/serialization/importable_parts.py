"""Parts of an evaluator that can be imported by name."""

from __future__ import annotations

import enum

import torch


def train(model, optimizers, criterion, lr_schedulers=None, max_steps=None):
    for _ in range(max_steps or 1):
        optimizers.zero_grad()
        criterion(model(torch.ones(4, 2)), torch.zeros(4, 1)).backward()
        optimizers.step()
        if lr_schedulers is not None:
            lr_schedulers.step()


def evaluate(model):
    return float(model(torch.ones(4, 2)).sum().detach())


def factor(epoch):
    return 0.9**epoch


class Colour(enum.Enum):
    RED = 1
