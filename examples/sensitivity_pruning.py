"""Sensitivity pruning (Han et al. 2015): each layer gets the sparsity that its accuracy can bear alone."""

from __future__ import annotations

from digits import run
from torch import nn
from torch.nn.utils import prune

import rebind

LAYERS = ("conv1", "conv2", "fc")
SPARSITIES = (0.2, 0.4, 0.6, 0.8)


def sensitivity_pruning(binding: rebind.Binding, tolerance: float = 0.02) -> dict[str, float]:
    """Prune one layer at a time to find what it can bear, then all of them, and finetune.

    Returns:
        The sparsity of each layer.
    """
    reference, _ = binding.evaluate()
    bearable = {name: bear(binding, name, reference - tolerance) for name in LAYERS}
    for name, sparsity in bearable.items():
        prune.l1_unstructured(binding.model.get_submodule(name), "weight", sparsity)
    binding.train(max_steps=40)
    return bearable


def bear(binding: rebind.Binding, name: str, least: float) -> float:
    """Give the greatest sparsity at which the accuracy is still enough; 0 if there is none."""
    layer: nn.Module = binding.model.get_submodule(name)
    weight = layer.weight.detach().clone()
    best = 0.0
    for sparsity in SPARSITIES:
        prune.l1_unstructured(layer, "weight", sparsity)
        score, _ = binding.evaluate()
        prune.remove(layer, "weight")
        layer.weight.data.copy_(weight)
        if score < least:
            break
        best = sparsity
    return best


if __name__ == "__main__":
    run(sensitivity_pruning)
