"""AGP (Zhu and Gupta 2017): sparsity that grows along a cubic schedule while the model trains."""

from __future__ import annotations

from digits import convolutions, run
from torch.nn.utils import prune

import rebind


def agp_pruning(binding: rebind.Binding, final: float = 0.8, steps: int = 60, every: int = 10) -> None:
    """After every so many steps, prune the smallest weights up to the sparsity of the schedule."""
    layers = convolutions(binding.model)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done % every:
            return
        sparsity = final * (1 - (1 - done / steps) ** 3)
        for layer in layers.values():
            zeros = int((layer.weight == 0).sum())
            more = round(sparsity * layer.weight.numel()) - zeros
            prune.l1_unstructured(layer, "weight", max(more, 0))

    with binding.after_step(advance):
        binding.train(max_steps=steps)
    binding.train(max_steps=40)


if __name__ == "__main__":
    run(agp_pruning)
