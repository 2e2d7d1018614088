"""Network slimming (Liu et al. 2017): an L1 penalty on batch-norm scales tells which channels may go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from digits import run
from torch import Tensor, nn
from torch.nn.utils import prune

import rebind

Criterion = Callable[..., Tensor]


def network_slimming(binding: rebind.Binding, amount: float = 0.5, penalty: float = 1e-2) -> None:
    """Train with the penalty, prune the channels of the smallest scales over all layers, and finetune."""
    norms = [module for module in binding.model.modules() if isinstance(module, nn.BatchNorm2d)]

    def with_penalty(criterion: Criterion) -> Criterion:
        def penalised(*inputs: Any) -> Tensor:  # scores and labels, or the batch of a training step
            scales = torch.cat([norm.weight for norm in norms])
            return criterion(*inputs) + penalty * scales.abs().sum()

        return penalised

    with binding.patch_criterion(with_penalty):
        binding.train(max_steps=60)
    pairs = [(norm, name) for norm in norms for name in ("weight", "bias")]
    scores = {pair: pair[0].weight.detach().abs().clone() for pair in pairs}
    # Scale and shift of a channel have one score: both stay, or both go.
    prune.global_unstructured(pairs, prune.L1Unstructured, importance_scores=scores, amount=amount)
    binding.train(max_steps=40)


if __name__ == "__main__":
    run(network_slimming)
