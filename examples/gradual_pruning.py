"""Gradual structural pruning with torch-pruning: channels go in rounds, while the CNN trains.

Each round watches what passes through the batch norms and its gradients for some steps, which gives the
Taylor importance of each channel (Molchanov et al. 2017). torch-pruning removes the least important ones, and
the binding goes on with what is left of the weights and of the optimizer's state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch_pruning as tp
from digits import SmallCNN, make_evaluator
from torch import Tensor, nn

import rebind
from rebind.runtime.integrations.torch_pruning import recording_kept

WATCHED = {"conv1": "bn1", "conv2": "bn2"}  # by convolution, the layer whose output tells of its channels
Kept = dict[str, dict[int, list[int]]]


class CollectedTaylor(tp.importance.Importance):
    """The importance of channels as it was collected, for torch-pruning."""

    def __init__(self) -> None:
        self.scores: dict[nn.Module, Tensor] = {}

    def __call__(self, group: tp.Group) -> Tensor | None:
        """Give the importance of each channel of the group's layer; None leaves them alone."""
        scores = self.scores.get(group[0].dep.target.module)
        return None if scores is None else scores[group[0].idxs]


def taylor_scores(outputs: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """Estimate how much the loss changes without a channel: |activation x gradient|, over images."""
    terms = [(a * g).mean((2, 3)).abs().mean(0) for a, g in zip(outputs, gradients, strict=True)]
    return torch.stack(terms).mean(0)


def watched_training(binding: rebind.Binding, steps: int) -> dict[nn.Module, Tensor]:
    """Train, and give the importance of the channels of each convolution meanwhile."""
    outputs = {name: binding.collect(norm, keep=steps) for name, norm in WATCHED.items()}
    gradients = {
        name: binding.collect(norm, keep=steps, source="grad_output") for name, norm in WATCHED.items()
    }
    binding.train(max_steps=steps)
    for collection in (*outputs.values(), *gradients.values()):
        collection.revert()
    return {
        binding.model.get_submodule(name): taylor_scores(outputs[name].values(), gradients[name].values())
        for name in WATCHED
    }


def sliced(binding: rebind.Binding, kept: Kept) -> None:
    """Go on with the optimizer's state of the channels that are left."""
    binding.rebind(binding.model, state="slice", kept=kept)


def gradual_pruning(
    binding: rebind.Binding,
    final: float = 0.75,
    rounds: int = 4,
    steps: int = 10,
    go_on: Callable[[rebind.Binding, Kept], object] = sliced,
) -> None:
    """Remove a share of the channels in rounds, training for some steps before each and after the last."""
    importance = CollectedTaylor()
    pruner = tp.pruner.BasePruner(
        binding.model,
        torch.zeros(1, 1, 8, 8),
        importance=importance,
        pruning_ratio=final,
        iterative_steps=rounds,
        ignored_layers=[binding.model.fc],
    )
    binding.model.train()  # torch-pruning traced it in evaluation mode, and Lightning trains it as it is
    for _ in range(rounds):
        importance.scores = watched_training(binding, steps)
        with recording_kept(binding.model) as kept:
            pruner.step()
        go_on(binding, kept)
    binding.train(max_steps=steps)


def main() -> None:
    """Print the number of parameters and the accuracy, before and after."""
    torch.manual_seed(0)
    model = SmallCNN(16)
    with rebind.bind(make_evaluator(model), model) as binding:
        binding.train()
        for what in ("dense", "pruned"):
            size = sum(parameter.numel() for parameter in model.parameters())
            print(f"{what}: {size:,} parameters, {binding.evaluate().score:.3f}")
            if what == "dense":
                gradual_pruning(binding)


if __name__ == "__main__":
    main()
