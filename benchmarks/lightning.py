"""What a training through a LightningEvaluator costs beside the same training with the user's own Trainer.

Two ratios: constructing everything and fitting one step; and 200 steps with a loss patch and two step tasks,
against the same penalty and counts written into the module. Both ways take turns in one process, and each
turn's two times make one ratio. The times are those of the processor, on one thread, so other programs hardly
disturb them.
"""

from __future__ import annotations

import argparse
import gc
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

import rebind

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from lightning_sweep import Classifier, Digits

_SMALL = 1e-4
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "logger": False,
    "max_epochs": -1,
}


class Plain(Classifier):
    """With an optimizer that asks nothing of the trainer."""

    def configure_optimizers(self) -> Any:
        """Give plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class ByHand(Plain):
    """The penalty and the two counts written into the module."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.counts = [0, 0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Add the penalty."""
        return super().training_step(batch, batch_idx) + penalty(self)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Count."""
        self.counts[0] += 1

    def on_train_batch_end(self, *args: Any) -> None:
        """Count."""
        self.counts[1] += 1


def penalty(module: Classifier) -> Tensor:
    """A small number that depends on the weights."""
    return _SMALL * module.features[1].weight.abs().sum()


def one_step(width: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Give both ways to construct everything and fit one step, timed."""
    evaluator = rebind.LightningEvaluator(rebind.trace(pl.Trainer)(**QUIET), rebind.trace(Digits)())

    def ours() -> float:
        model = Plain(width)
        began = time.process_time()
        with rebind.bind(evaluator, model) as binding:
            binding.train(max_steps=1, progress=False)
        return time.process_time() - began

    def theirs() -> float:
        model = Plain(width)
        began = time.process_time()
        pl.Trainer(**{**QUIET, "max_steps": 1}).fit(model, datamodule=Digits())
        return time.process_time() - began

    return ours, theirs


def many_steps(width: int, steps: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Give both ways to train with a penalty and two counts, timed over one whole training."""
    evaluator = rebind.LightningEvaluator(rebind.trace(pl.Trainer)(**QUIET), rebind.trace(Digits)())

    def ours() -> float:
        torch.manual_seed(0)
        model, counts = Plain(width), [0, 0]

        def count(index: int) -> None:
            counts[index] += 1

        began = time.process_time()
        with rebind.bind(evaluator, model) as binding:
            binding.patch_loss(lambda loss: loss + penalty(model))
            binding.before_step(lambda: count(0))
            binding.after_step(lambda: count(1))
            binding.train(max_steps=steps, progress=False)
        seconds = time.process_time() - began
        assert counts == [steps, steps]
        final["ours"] = model.classifier.weight.detach()
        return seconds

    def theirs() -> float:
        torch.manual_seed(0)
        model = ByHand(width)
        began = time.process_time()
        pl.Trainer(**{**QUIET, "max_steps": steps}).fit(model, datamodule=Digits())
        seconds = time.process_time() - began
        assert model.counts == [steps, steps]
        final["theirs"] = model.classifier.weight.detach()
        return seconds

    final: dict[str, Tensor] = {}
    ours(), theirs()
    assert torch.equal(final["ours"], final["theirs"])
    return ours, theirs


def ratios(ours: Callable[[], float], theirs: Callable[[], float], turns: int) -> tuple[list[float], float]:
    """Give the ratio of each turn, and the seconds of the fastest of theirs."""
    found, seconds = [], []
    for turn in range(turns + 2):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        gc.collect()
        times = {first: first(), second: second()}
        if turn >= 2:
            found.append(times[ours] / times[theirs])
            seconds.append(times[theirs])
    return found, min(seconds)


def main() -> int:
    """Print the figures; 1 if a target is missed and `--check` was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    gc.disable()
    missed = False
    for what, target, pair, turns in (
        ("construct and fit 1 step", 1.1, one_step(8), 2 * options.turns),
        (
            f"{options.steps} steps with patches",
            1.02,
            many_steps(options.width, options.steps),
            options.turns,
        ),
    ):
        found, seconds = ratios(*pair, turns)
        low, ratio, high = statistics.quantiles(found, n=4)
        missed = missed or ratio > target
        print(
            f"{what}: {seconds * 1e3:.1f} ms by Lightning alone; bound / alone {ratio:.3f} "
            f"(quartiles {low:.3f} and {high:.3f}; target {target})"
        )
    return int(options.check and missed)


if __name__ == "__main__":
    sys.exit(main())
