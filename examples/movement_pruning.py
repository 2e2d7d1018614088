"""Movement pruning (Sanh et al. 2020): scores that train with the weights decide which weights stay."""

from __future__ import annotations

import torch
from digits import convolutions, run
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import rebind


class Scored(nn.Module):
    """Multiplies a weight by a mask of its greatest scores; gradients go straight through to the scores."""

    def __init__(self, weight: Tensor, sparsity: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros_like(weight))
        self.sparsity = sparsity

    def mask(self) -> Tensor:
        """Give the mask of the scores as they are."""
        mask = torch.ones(self.scores.numel())
        mask[self.scores.detach().flatten().argsort()[: round(self.sparsity * mask.numel())]] = 0
        return mask.view_as(self.scores)

    def forward(self, weight: Tensor) -> Tensor:
        """Give the weight that the layer uses."""
        straight_through = self.mask() + self.scores - self.scores.detach()
        return weight * straight_through


def movement_pruning(binding: rebind.Binding, sparsity: float = 0.5, steps: int = 60) -> None:
    """Train weights and scores together, make the last mask a mask of torch, and finetune."""
    layers = convolutions(binding.model)
    scored = {name: Scored(layer.weight, sparsity) for name, layer in layers.items()}
    for name, layer in layers.items():
        parametrize.register_parametrization(layer, "weight", scored[name])
    with binding.add_parameters({f"{name}.weight": [scored[name].scores] for name in layers}):
        binding.train(max_steps=steps)
    for name, layer in layers.items():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        prune.custom_from_mask(layer, "weight", scored[name].mask())
    binding.train(max_steps=40)


if __name__ == "__main__":
    run(movement_pruning)
