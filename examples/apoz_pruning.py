"""APoZ pruning (Hu et al. 2016): remove the filters whose activations are most often zero."""

from __future__ import annotations

from digits import run
from torch import Tensor, nn
from torch.nn.utils import prune

import rebind

# Each convolution with the activation behind it.
LAYERS = {"conv1": "relu1", "conv2": "relu2"}


def apoz_pruning(binding: rebind.Binding, amount: float = 0.5, steps: int = 10) -> dict[str, Tensor]:
    """Measure how often the activations of each filter are positive, prune by it, and finetune.

    Returns:
        The share of positive activations of each filter, by the name of its convolution.
    """

    def count(state: Tensor | None, output: Tensor) -> Tensor:
        positive = (output > 0).float().mean((0, 2, 3))
        return positive if state is None else state + positive

    activations = {name: binding.collect(relu, reduce=count) for name, relu in LAYERS.items()}
    binding.train(max_steps=steps)
    shares: dict[str, Tensor] = {}
    for name, collection in activations.items():
        collection.revert()
        shares[name] = collection.value / collection.count
        layer = binding.model.get_submodule(name)
        if isinstance(layer, nn.Conv2d):
            scores = shares[name].view(-1, 1, 1, 1).expand_as(layer.weight)
            prune.ln_structured(layer, "weight", amount, n=1, dim=0, importance_scores=scores)
    binding.train(max_steps=40)
    return shares


if __name__ == "__main__":
    run(apoz_pruning)
