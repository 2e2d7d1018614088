"""Evaluators and models that the commands are tried on; importable by name, also in workers."""

from __future__ import annotations

import torch

from rebind import TorchEvaluator, trace
from rebind.serialization import SigningKey

KEY = SigningKey("ci", b"cli-secret-" * 4)


def train(model, optimizers, criterion, max_steps=None):
    for _ in range(max_steps or 1):
        optimizers.zero_grad()
        criterion(model(torch.ones(4, 2)), torch.zeros(4, 1)).backward()
        optimizers.step()


def evaluate(model):
    loss = model(torch.ones(4, 2)).abs().mean().item()
    return -loss, {"parameters": sum(each.numel() for each in model.parameters())}


def declared(lr=0.1, dummy_input=None):
    """An evaluator of import paths."""
    model = torch.nn.Linear(2, 1)
    optimizer = trace(torch.optim.SGD)(model.named_parameters(), lr=lr)
    mse = torch.nn.functional.mse_loss
    return TorchEvaluator(train, optimizer, mse, dummy_input=dummy_input, evaluating_func=evaluate)


def with_code(lr=0.1):
    """An evaluator with a closure."""
    scale = 1.0

    def scaled(model):
        return evaluate(model)[0] * scale

    return TorchEvaluator.from_fields(declared(lr).fields() | {"evaluating_func": scaled})


def small():
    return torch.nn.Linear(2, 1)


def broken():
    raise RuntimeError("this model cannot be made")


def with_arguments(width):
    return torch.nn.Linear(width, 1)


an_instance = torch.nn.Linear(2, 1)
no_model = 5
