"""A transformer made smaller in nine ways, in worker processes, through one evaluator.

MiniLM (22.6 million parameters) learns to tell from which part of the Bible a verse is. The Trainer that does
so becomes one evaluator, which is saved to a signed file and opened again. While it trains the model, another
process trains the same model by the same Trainer without rebind, and the weights have to be equal to the last
bit. Then two workers prune and quantize the trained model, finetune what is left, and evaluate.

Writes into the folder `minilm_sweep`. Exits with 1 if the weights differ, if the trained model is no better
than naive Bayes, or if a variant gets back nothing of what it lost. Nothing is downloaded.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
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

    training: int = 1280
    test: int = 200
    steps: int = 320
    finetuning: int = 80


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
    evaluator: rebind.TransformersEvaluator, weights: Path, names: Sequence[str], steps: int
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
def latencies(names: Sequence[str], rounds: int = 15) -> dict[str, float]:
    """Measure how many milliseconds each model takes for one verse of 33 tokens, by one thread.

    In turns, so that whatever else the machine does slows all of them down.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of its own int8 modules' future
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
    shown = Table(
        title=f"MiniLM made smaller, and finetuned for {steps} steps",
        title_style="bold",
        caption="MB: of the saved weights. before, after: the accuracy, without and with finetuning. "
        "seconds: of the finetuning. ms: for one verse, by one thread.",
    )
    shown.add_column("variant")
    for column in ("MB", "nonzero", "before", "after", "seconds", "ms"):
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


def main(scale: Scale | None = None, names: tuple[str, ...] = tuple(VARIANTS)) -> int:
    """Run the demo."""
    began, console, scale = time.perf_counter(), Console(), scale or Scale()
    FOLDER.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    training, test = minilm_text.verses(scale.training, scale.test)
    classes = ", ".join(minilm_text.CLASSES)
    console.print(f"{len(training):,} verses to train on and {len(test)} to test: {classes}.\n")

    evaluator, model, differ = trained(console, scale, rebind.SigningKey.generate("demo"))
    size = sum(parameter.numel() for parameter in model.parameters())
    seconds = time.perf_counter() - began
    console.print(f"\nTrained {size:,} parameters for {scale.steps} steps, in {seconds:.0f} s.")
    console.print(f"Tensors that the same Trainer gives otherwise without rebind: {len(differ)}\n")

    weights = (FOLDER / "trained.pt").absolute()
    torch.save(model.state_dict(), weights)
    results = sweep(evaluator, weights, names, scale.finetuning)
    console.print(table(results, latencies(names), scale.finetuning))
    baselines = {
        "the most frequent class": minilm_text.most_frequent_class(training, test),
        "naive Bayes": minilm_text.naive_bayes(training, test),
    }
    for name, score in baselines.items():
        console.print(f"Accuracy of {name}: {score:.3f}")
    for file in (weights, *map(model_file, names)):
        file.unlink()
    console.print(f"{time.perf_counter() - began:.0f} s in all, {os.cpu_count()} cores.")
    problems = [f"another {name} than without rebind" for name in differ]
    problems += shortfalls(results, baselines)
    for problem in problems:
        console.print(problem, style="red")
    return int(bool(problems))


def shortfalls(results: dict[str, rebind.TrialResult], baselines: dict[str, float]) -> Iterator[str]:
    """Tell what the demo promises, and has not shown."""
    trained = results["as it is"].info["before"]
    if trained < baselines["naive Bayes"] + 0.02:
        yield "The trained model should be better than naive Bayes by 0.02."
    for name, result in results.items():
        before, after = result.info["before"], result.score or 0.0
        lost = trained - before
        if lost > 0.05 and after < before + lost / 5:
            yield f"{name}: finetuning should bring back a fifth of what was lost, at least."
        if name == "8 bits" and before < trained - 0.05:
            yield "8 bits should cost less than 0.05, without any finetuning."


if __name__ == "__main__":
    sys.exit(main())
