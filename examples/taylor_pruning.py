"""Taylor pruning (Molchanov et al. 2019): remove the filters whose loss changes least without them."""

from __future__ import annotations

import torch
from digits import convolutions, run
from torch import Tensor
from torch.nn.utils import prune

import rebind


def taylor_pruning(binding: rebind.Binding, amount: float = 0.5, steps: int = 10) -> dict[str, Tensor]:
    """Sum the squares of weight times gradient over some steps, prune by it, and finetune.

    Returns:
        The importance of each filter, by the name of its convolution.
    """
    layers = convolutions(binding.model)
    importance = {name: torch.zeros(layer.out_channels) for name, layer in layers.items()}

    def accumulate() -> None:
        for name, layer in layers.items():
            if layer.weight.grad is not None:
                importance[name] += (layer.weight * layer.weight.grad).detach().sum((1, 2, 3)).square()

    with binding.before_step(accumulate):
        binding.train(max_steps=steps)
    for name, layer in layers.items():
        scores = importance[name].view(-1, 1, 1, 1).expand_as(layer.weight)
        prune.ln_structured(layer, "weight", amount, n=1, dim=0, importance_scores=scores)
    binding.train(max_steps=40)
    return importance


if __name__ == "__main__":
    run(taylor_pruning)
