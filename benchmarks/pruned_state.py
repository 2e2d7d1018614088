"""What an optimizer's state is worth after structural pruning: sliced, stale or fresh, over several seeds.

For each seed and optimizer, one CNN is trained on handwritten digits. From there, channels go in rounds
(`examples/gradual_pruning.py`) in three ways, which differ in the optimizer after each round only:

- sliced: it goes on with the state of the channels that are left;
- fresh: it begins anew on what is left;
- stale: it stays as it was, with the parameters that torch-pruning has replaced.

Prints the loss on the test images and the accuracy, mean and standard deviation over the seeds; how much
lower the loss is with sliced state, mean and standard error over the seeds; and on how many seeds it is.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

import rebind

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from digits import SmallCNN, accuracy, digits, train
from gradual_pruning import gradual_pruning, sliced

WAYS = {
    "sliced": sliced,
    "fresh": lambda binding, _: binding.rebind(binding.model),
    "stale": lambda *_: None,
}
OPTIMIZERS: dict[str, Any] = {
    "SGD, momentum 0.9": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.005),
}


@torch.no_grad()
def loss_of(model: torch.nn.Module) -> float:
    """Give the loss on the test images."""
    _, _, images, labels = digits()
    model.eval()
    return F.cross_entropy(model(images), labels).item()


def run(optimizer: str, seed: int, options: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Give loss and accuracy at the end, by the way of going on, all from the same dense CNN."""
    torch.manual_seed(seed)
    dense = SmallCNN(16)
    traced = rebind.trace(OPTIMIZERS[optimizer])(dense.parameters())
    evaluator = rebind.TorchEvaluator(train, traced, F.cross_entropy, evaluating_func=accuracy, model=dense)
    with rebind.bind(evaluator, dense) as binding:
        binding.train(max_steps=100)
        state = binding.state_dict()
    found = {}
    for way, go_on in WAYS.items():
        model = copy.deepcopy(dense)
        with rebind.bind(evaluator, model) as binding:
            binding.load_state_dict(state)
            torch.manual_seed(seed)
            gradual_pruning(binding, **options, go_on=go_on)
            found[way] = loss_of(model), accuracy(model)
    return found


def main() -> int:
    """Print the figures; 1 if `--check` was given and sliced is no better than stale, or worse than fresh."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10, help="before each round, and after the last")
    parser.add_argument("--final", type=float, default=0.75, help="the share of channels that goes")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a claim does not hold")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pruning = {"rounds": options.rounds, "steps": options.steps, "final": options.final}
    print(f"{options.seeds} seeds; {options.final:.0%} of the channels in {options.rounds} rounds")
    print(f"{options.steps} steps before each round and after the last\n")
    print("| optimizer | state | test loss | accuracy | sliced is lower by | on |")
    print("| --- | --- | --- | --- | --- | --- |")
    holds = True
    for optimizer in OPTIMIZERS:
        runs = [run(optimizer, seed, pruning) for seed in range(options.seeds)]
        for way in WAYS:
            losses, scores = zip(*(one[way] for one in runs), strict=True)
            print(f"| {optimizer} | {way} | {_spread(losses)} | {_spread(scores)} | {_lower(runs, way)} |")
        means = {way: statistics.mean(one[way][0] for one in runs) for way in WAYS}
        holds &= means["sliced"] < means["stale"] and means["sliced"] <= means["fresh"]
    return int(options.check and not holds)


def _lower(runs: list[dict[str, tuple[float, float]]], way: str) -> str:
    if way == "sliced":
        return "|"
    differences = [one[way][0] - one["sliced"][0] for one in runs]
    error = statistics.stdev(differences) / len(runs) ** 0.5
    better = sum(difference > 0 for difference in differences)
    return f"{statistics.mean(differences):+.3f} ± {error:.3f} | {better} of {len(runs)}"


def _spread(values: Any) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    sys.exit(main())
