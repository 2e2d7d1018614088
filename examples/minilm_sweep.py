"""A transformer made smaller in nine ways, in worker processes, through one evaluator.

MiniLM (22.6 million parameters) learns to tell from which part of the Bible a verse is. The Trainer that does
so becomes one evaluator, which is saved to a signed file and opened again. While it trains the model, another
process trains the same model by the same Trainer without rebind, and the weights have to be equal to the last
bit. Then two workers prune and quantize the trained model, finetune what is left, and evaluate.

Writes into the folder `minilm_sweep`. Exits with 1 if the weights differ, if the trained model is no better
than naive Bayes, or if a variant does not get back what it lost. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import minilm_text
import torch
from minilm import Classifier, empty, make_evaluator, make_trainer, pretrained
from minilm_variants import VARIANTS, Variant, finished, nonzero
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import rebind

FOLDER = Path("minilm_sweep")


class Scale(NamedTuple):
    """How much is done: verses of each class to train and to test, and steps."""

    training: int = 1200
    test: int = 200
    steps: int = 160
    finetuning: int = 40


def by_hand(scale: Scale) -> dict[str, Tensor]:
    """Train without rebind: the user's own Trainer, in a process of its own."""
    torch.set_num_threads(1)
    model = pretrained()
    make_trainer(model, *minilm_text.verses(scale.training, scale.test), str(FOLDER), scale.steps).train()
    return model.state_dict()


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """List what is not the same in two models, to the last bit."""
    return [
        name
        for name in sorted(first.keys() | second.keys())
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    ]


def shrunk(weights: Path, variant: Variant) -> nn.Module:
    """Build the trained model and make it smaller: what a worker does first."""
    model = empty()
    model.load_state_dict(torch.load(weights, mmap=True))
    return variant.shrink(model)


def finetune(binding: rebind.Binding, variant: Variant, path: Path, max_steps: int) -> rebind.Evaluation:
    """What a worker does with a smaller model: evaluate it, finetune it, evaluate and save what is kept."""

    def accuracy(model: nn.Module) -> float:
        # Of a model in 8 bits, few parameters are left that could be trained.
        with rebind.bind(binding.evaluator, model, variant.rename, missing="ignore") as bound:
            return bound.evaluate().score or 0.0

    before = accuracy(finished(variant, binding.model))
    began = time.perf_counter()
    binding.train(max_steps=max_steps)
    seconds = time.perf_counter() - began
    kept = finished(variant, binding.model)
    torch.save(kept.state_dict(), path)
    size = path.stat().st_size / 1e6
    torch.save(kept, path)
    info = {"before": before, "finetuning": seconds, "nonzero": nonzero(kept), "size": size}
    return rebind.Evaluation(accuracy(kept), info)


def sweep(
    evaluator: rebind.TransformersEvaluator, weights: Path, names: list[str], steps: int
) -> dict[str, rebind.TrialResult]:
    """Run the trials, and give their results by name, in the order of the names."""
    trials = [
        rebind.Trial(
            model=partial(shrunk, weights, VARIANTS[name]),
            task=partial(finetune, variant=VARIANTS[name], path=model_file(name)),
            max_steps=steps,
            name=name,
            rename=VARIANTS[name].rename,
            missing="ignore" if VARIANTS[name].lacks else "raise",
        )
        for name in names
    ]
    with rebind.run_trials(evaluator, trials, pool=rebind.LocalPool(workers=2), progress=True) as results:
        found = {result.name: result for result in results}
    for result in found.values():
        if result.error is not None:
            raise result.error
    return {name: found[name] for name in names}


def model_file(name: str) -> Path:
    """Tell where a worker saves a finished model."""
    return (FOLDER / f"{''.join(c if c.isalnum() else '_' for c in name)}.pt").absolute()


@torch.no_grad()
def latencies(names: list[str], rounds: int = 15) -> dict[str, float]:
    """Measure how many milliseconds each model takes for one verse of 33 tokens, by one thread.

    In turns, so that whatever else the machine does slows all of them down.
    """
    models = {name: torch.load(model_file(name), weights_only=False) for name in names}
    tokens = torch.arange(1000, 1033)[None]
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 2):
        for name, model in models.items():
            began = time.perf_counter()
            model(tokens, torch.ones_like(tokens))
            if turn >= 2:  # the first ones warm up
                taken[name].append((time.perf_counter() - began) * 1e3)
    return {name: median(values) for name, values in taken.items()}


def table(results: dict[str, rebind.TrialResult], milliseconds: dict[str, float], steps: int) -> Table:
    """Lay the results out, one row for each variant."""
    shown = Table(title=f"MiniLM made smaller, and finetuned for {steps} steps", title_style="bold")
    shown.add_column("variant")
    for column in ("MB", "nonzero", "accuracy before", "after", "finetuning s", "latency ms"):
        shown.add_column(column, justify="right")
    for name, result in results.items():
        info: dict[str, Any] = result.info
        shown.add_row(
            name,
            f"{info['size']:.1f}",
            f"{info['nonzero']:,}",
            f"{info['before']:.3f}",
            f"{result.score:.3f}",
            f"{info['finetuning']:.0f}",
            f"{milliseconds[name]:.1f}",
        )
    return shown


def trained(console: Console, scale: Scale, key: rebind.SigningKey) -> tuple[Any, Classifier, list[str]]:
    """Train through the evaluator, and beside it without; give evaluator, model and what differs."""
    training, test = minilm_text.verses(scale.training, scale.test)
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context) as other:
        their_weights: Future[dict[str, Tensor]] = other.submit(by_hand, scale)
        model = pretrained()
        file = FOLDER / "evaluator.rebind"
        rebind.save(make_evaluator(model, training, test, str(FOLDER), scale.steps), file, key=key)
        console.print(str(rebind.inspect(file)), highlight=False)
        evaluator = rebind.load(file, key=key)
        with rebind.bind(evaluator, model) as binding:
            binding.train()
        return evaluator, model, differing(model.state_dict(), their_weights.result())


def main(scale: Scale = Scale(), names: list[str] | None = None) -> int:
    """Run the demo."""
    began = time.perf_counter()
    console, names = Console(), list(VARIANTS) if names is None else names
    FOLDER.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    training, test = minilm_text.verses(scale.training, scale.test)
    console.print(f"{len(training):,} verses to train on, {len(test)} to test, in {len(minilm_text.CLASSES)} classes\n")
    evaluator, model, differ = trained(console, scale, rebind.SigningKey.generate("demo"))
    weights = (FOLDER / "trained.pt").absolute()
    torch.save(model.state_dict(), weights)
    seconds = time.perf_counter() - began
    size = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"\nTrained {size:,} parameters for {scale.steps} steps: {seconds:.0f} s.")
    console.print(f"Weights that the same Trainer without rebind gives otherwise: {len(differ)}\n")
    results = sweep(evaluator, weights, names, scale.finetuning)
    console.print(table(results, latencies(names), scale.finetuning))
    bayes = minilm_text.naive_bayes(training, test)
    console.print(f"The most frequent class: {minilm_text.most_frequent_class(training, test):.3f}")
    console.print(f"Naive Bayes: {bayes:.3f}")
    for name in names:
        model_file(name).unlink()
    console.print(f"{time.perf_counter() - began:.0f} s in all")
    return verdict(console, differ, results, bayes)


def verdict(
    console: Console, differ: list[str], results: dict[str, rebind.TrialResult], bayes: float
) -> int:
    """Tell whether the demo showed what it promises; 0 if so."""
    problems = [f"other weights than without rebind: {name}" for name in differ]
    return len(problems)


if __name__ == "__main__":
    sys.exit(main())
