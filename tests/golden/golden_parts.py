"""What the golden files refer to by name, and what they hold. Add to it; change nothing in it."""

from __future__ import annotations

import torch

from rebind import TorchEvaluator, trace
from rebind.serialization import SigningKey

# Published on purpose: it signs nothing but the golden files.
KEY = SigningKey("golden", b"the golden key is known to all..")


def train(model, optimizers, criterion, max_steps=None):
    for _ in range(max_steps or 1):
        optimizers.zero_grad()
        criterion(model(torch.ones(4, 2)), torch.zeros(4, 1)).backward()
        optimizers.step()


def dummy_input():
    base = torch.arange(12.0).view(3, 4)
    return {"base": base, "view": base.t()[1:], "half": torch.tensor([1.5]).bfloat16()}


def declared():
    """An evaluator of import paths."""
    model = torch.nn.Linear(2, 1)
    optimizer = trace(torch.optim.AdamW)(model.named_parameters(), lr=0.01, betas=(0.8, 0.9))
    scheduler = trace(torch.optim.lr_scheduler.StepLR)(optimizer, step_size=3)
    mse = torch.nn.functional.mse_loss
    return TorchEvaluator(train, optimizer, mse, scheduler, dummy_input=dummy_input())


def with_code():
    """An evaluator with a closure."""
    base = declared()
    scale = torch.full((3,), 2.0)

    def closure(model, optimizers, criterion):
        return scale.sum()

    return TorchEvaluator.from_fields(base.fields() | {"training_func": closure})


def value():
    """A value that is no evaluator."""
    weight = torch.nn.Parameter(torch.arange(6.0))
    return {"weight": weight, "view": weight.detach()[2:], "numbers": [1, 2.5, None, "text"]}
