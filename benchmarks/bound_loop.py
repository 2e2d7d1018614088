"""What a bound training costs beside the same loop written by hand, on a CNN for handwritten digits.

The loop has one loss patch and two step tasks. Both ways take turns in one process, and each turn's two times
make one ratio. A step task alone is timed on an optimizer that has nothing to do.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor, nn

import rebind

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from digits import SmallCNN, digits

_SMALL = 1e-4


def train(model: nn.Module, optimizers: Any, criterion: Any, max_steps: int = 1) -> None:
    """Train on the first images, batch by batch: the user's own loop."""
    images, labels, _, _ = digits()
    model.train()
    for step in range(max_steps):
        first = 64 * (step % 20)
        optimizers.zero_grad()
        criterion(model(images[first : first + 64]), labels[first : first + 64]).backward()
        optimizers.step()


def train_by_hand(model: SmallCNN, optimizer: torch.optim.Optimizer, counts: list[int], steps: int) -> None:
    """Run the same loop with the same penalty and the same two tasks written into it."""
    images, labels, _, _ = digits()
    model.train()
    for step in range(steps):
        first = 64 * (step % 20)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[first : first + 64]), labels[first : first + 64])
        (loss + _SMALL * model.bn1.weight.abs().sum()).backward()
        counts[0] += 1
        optimizer.step()
        counts[1] += 1


def bound(width: int) -> tuple[rebind.Binding, list[int]]:
    """Bind the CNN, with a loss patch and two tasks."""
    torch.manual_seed(0)
    model = SmallCNN(width)
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.05, momentum=0.9)
    binding = rebind.bind(rebind.TorchEvaluator(train, optimizer, F.cross_entropy, model=model), model)
    counts = [0, 0]

    def penalised(loss: Tensor) -> Tensor:
        return loss + _SMALL * model.bn1.weight.abs().sum()

    def count_before() -> None:
        counts[0] += 1

    def count_after() -> None:
        counts[1] += 1

    binding.patch_loss(penalised)
    binding.before_step(count_before)
    binding.after_step(count_after)
    return binding, counts


def compare(steps: int, turns: int, width: int) -> tuple[list[float], float]:
    """Give the ratio of each turn, bound over by hand, and the seconds of a step by hand."""
    binding, counts = bound(width)
    torch.manual_seed(0)
    plain = SmallCNN(width)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    plain_counts = [0, 0]

    def ours() -> float:
        began = time.perf_counter()
        binding.train(max_steps=steps, progress=False)
        return time.perf_counter() - began

    def theirs() -> float:
        began = time.perf_counter()
        train_by_hand(plain, optimizer, plain_counts, steps)
        return time.perf_counter() - began

    ratios, seconds = [], []
    for turn in range(turns + 2):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        times = {first: first(), second: second()}
        if turn >= 2:
            ratios.append(times[ours] / times[theirs])
            seconds.append(times[theirs] / steps)
    assert counts == plain_counts
    assert all(map(torch.equal, binding.model.parameters(), plain.parameters()))
    return ratios, min(seconds)


class _Idle(torch.optim.Optimizer):
    """An optimizer whose step does nothing."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def step(self, closure: Any = None) -> None:
        """Do nothing."""


def task_cost(tasks: int, steps: int = 20_000) -> float:
    """Give the seconds that one step task adds to a step, the best of five: with tasks and without."""
    model = nn.Linear(1, 1)

    def only_steps(model: nn.Module, optimizers: Any, criterion: Any) -> None:
        for _ in range(steps):
            optimizers.step()

    evaluator = rebind.TorchEvaluator(
        only_steps, rebind.trace(_Idle)(model.parameters()), F.mse_loss, model=model
    )

    def timed() -> float:
        began = time.perf_counter()
        binding.train(progress=False)
        return time.perf_counter() - began

    with rebind.bind(evaluator, model) as binding:
        without = min(timed() for _ in range(5))
        for number in range(tasks):
            (binding.before_step if number % 2 else binding.after_step)(lambda: None)
        return (min(timed() for _ in range(5)) - without) / steps / tasks


def main() -> int:
    """Print the figures; 1 if a target is missed and `--check` was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    gc.disable()
    ratios, seconds = compare(options.steps, options.turns, options.width)
    ratio, low, high = (
        statistics.median(ratios), *statistics.quantiles(ratios, n=4)[::2]
    )  # fmt: skip
    cost = task_cost(2)
    print(f"a step by hand: {seconds * 1e3:.2f} ms")
    print(f"bound / by hand: {ratio:.4f} (quartiles {low:.4f} and {high:.4f}; target 1.01)")
    print(f"a step task: {cost * 1e6:.2f} us (target 5)")
    return int(options.check and (ratio > 1.01 or cost > 5e-6))


if __name__ == "__main__":
    sys.exit(main())
