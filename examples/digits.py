"""What the examples share: handwritten digits, a small CNN, and its evaluator as a user writes it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor, nn

import rebind


class SmallCNN(nn.Module):
    """Two convolutions and a linear layer, for images of 1 x 8 x 8 pixels in 10 classes."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(width), nn.ReLU()
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(2 * width), nn.ReLU()
        self.fc = nn.Linear(8 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Give the scores of the 10 classes, of shape (batch, 10)."""
        hidden = F.max_pool2d(self.relu1(self.bn1(self.conv1(images))), 2)
        hidden = F.max_pool2d(self.relu2(self.bn2(self.conv2(hidden))), 2)
        scores: Tensor = self.fc(hidden.flatten(1))
        return scores


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give training images and labels (1,347), and test images and labels (450)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(images / 16.0, dtype=torch.float32).view(-1, 1, 8, 8)[order]
    y = torch.tensor(labels)[order]
    return x[:1347], y[:1347], x[1347:], y[1347:]


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Give shuffled batches of 64, for ever."""
    images, labels, _, _ = digits()
    while True:
        for batch in torch.randperm(len(images)).split(64):
            yield images[batch], labels[batch]


def train(model: nn.Module, optimizers: Any, criterion: Any, max_steps: int | None = None) -> None:
    """Train for 100 steps, if nothing else is said: the user's own loop, as they have it."""
    model.train()
    for _, (images, labels) in zip(range(max_steps or 100), batches(), strict=False):
        optimizers.zero_grad()
        criterion(model(images), labels).backward()
        optimizers.step()


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Give the share of the test images that are right."""
    _, _, images, labels = digits()
    model.eval()
    return (model(images).argmax(1) == labels).float().mean().item()


def make_evaluator(model: nn.Module) -> rebind.TorchEvaluator:
    """Package training and evaluation into one value."""
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.05, momentum=0.9)
    return rebind.TorchEvaluator(train, optimizer, F.cross_entropy, evaluating_func=accuracy, model=model)


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Give the convolutions of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def run(algorithm: Any) -> None:
    """Train a CNN, compress it by an algorithm, and print the accuracy before and after."""
    torch.manual_seed(0)
    model = SmallCNN()
    with rebind.bind(make_evaluator(model), model) as binding:
        binding.train()
        before, _ = binding.evaluate()
        algorithm(binding)
        after, _ = binding.evaluate()
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    print(f"{algorithm.__name__}: {before:.3f} -> {after:.3f}, {zeros:.0%} of the weights are zero")
