"""The main job on real data: one evaluator in a file, put onto pruned models in worker processes.

A small CNN is trained on scikit-learn's handwritten digits. How it is trained and evaluated becomes one
evaluator, which is saved to a signed file. Two worker processes then open it; each trial prunes the CNN
with torch-pruning, puts the evaluator onto what is left, finetunes and evaluates.

Writes `digits_sweep.rebind` (the evaluator) and `digits_sweep.png` (accuracy against parameters) into the
current folder. Exits with 1 if finetuning does not bring the model with 75 % of its channels pruned to
within 3 points of the dense one.

With `--json`, standard output is one JSON value, and what is told on the way goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import rebind

SPARSITIES = (0.0, 0.25, 0.5, 0.75, 0.9)
EVALUATOR_FILE, PLOT_FILE = "digits_sweep.rebind", "digits_sweep.png"


class DigitsCNN(nn.Module):
    """Three convolutions and a linear layer, for images of 1 x 8 x 8 pixels in 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Linear(64 * 2 * 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Give the scores of the 10 classes, of shape (batch, 10)."""
        return self.classifier(self.features(images).flatten(1))


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give training images and labels (1,347), and test images and labels (450)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16.0, labels, test_size=450, random_state=0, stratify=labels)
    train_x, test_x = (torch.tensor(part, dtype=torch.float32).view(-1, 1, 8, 8) for part in parts[:2])
    train_y, test_y = (torch.tensor(part) for part in parts[2:])
    return train_x, train_y, test_x, test_y


def train(
    model: nn.Module,
    optimizers: torch.optim.Optimizer,
    criterion: Any,
    lr_schedulers: Any = None,
    max_steps: int | None = None,
    max_epochs: int | None = None,
) -> None:
    """Train for 12 epochs, if nothing else is said: the user's own loop, as they have it."""
    images, labels, _, _ = digits()
    model.train()
    steps = 0
    for _ in range(max_epochs or 12):
        for batch in torch.randperm(len(images)).split(64):
            optimizers.zero_grad()
            criterion(model(images[batch]), labels[batch]).backward()
            optimizers.step()
            steps += 1
            if steps == max_steps:
                return
        lr_schedulers.step()


@torch.no_grad()
def accuracy(model: nn.Module) -> tuple[float, dict[str, float]]:
    """Give the accuracy on the test images, and the loss beside it."""
    _, _, images, labels = digits()
    model.eval()
    scores = model(images)
    correct = (scores.argmax(1) == labels).float().mean().item()
    return correct, {"loss": F.cross_entropy(scores, labels).item()}


def pruned(weights: dict[str, Tensor], sparsity: float) -> nn.Module:
    """Build the trained CNN and remove a share of each layer's channels, those of the smallest norm."""
    import torch_pruning as tp

    model = DigitsCNN()
    model.load_state_dict(weights)
    if sparsity:
        tp.pruner.MagnitudePruner(
            model,
            torch.zeros(1, 1, 8, 8),
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=sparsity,
            ignored_layers=[model.classifier],
        ).step()
    return model


def finetune(binding: rebind.Binding) -> rebind.Evaluation:
    """What each trial does: evaluate, finetune, evaluate again."""
    before, _ = binding.evaluate()
    binding.finetune()
    after, info = binding.evaluate()
    size = sum(parameter.numel() for parameter in binding.model.parameters())
    return rebind.Evaluation(after, {"parameters": size, "after pruning": before, **info})


def table(results: list[rebind.TrialResult]) -> Table:
    """Lay the results out, one row for each sparsity."""
    shown = Table(title="Pruning a CNN on handwritten digits", title_style="bold")
    for column in ("sparsity", "parameters", "after pruning", "after finetuning", "seconds", "process"):
        shown.add_column(column, justify="right")
    for result in results:
        shown.add_row(
            result.name,
            f"{result.info['parameters']:,}",
            f"{result.info['after pruning']:.3f}",
            f"{result.score:.3f}",
            f"{result.seconds:.1f}",
            str(result.process_id),
        )
    return shown


def told(result: rebind.TrialResult) -> dict[str, Any]:
    """A result as a JSON value."""
    return {"name": result.name, "score": result.score, "info": result.info, "seconds": result.seconds}


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="write one JSON value to standard output")
    as_json: bool = parser.parse_args().json
    console = Console(stderr=as_json)
    torch.manual_seed(0)
    model = DigitsCNN()

    # What the user writes: their own optimizer, scheduler and functions, in one evaluator.
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = rebind.trace(torch.optim.lr_scheduler.CosineAnnealingLR)(optimizer, T_max=12)
    evaluator = rebind.TorchEvaluator(
        train, optimizer, F.cross_entropy, scheduler, torch.zeros(1, 1, 8, 8), accuracy
    )
    console.print(str(evaluator), highlight=False)

    with rebind.bind(evaluator, model) as binding:
        binding.train()
        dense, _ = binding.evaluate()
    console.print(f"\nThe dense model: {dense:.3f} of the test images are right.\n")

    key = rebind.SigningKey.generate("demo")
    rebind.save(evaluator, EVALUATOR_FILE, key=key)
    console.print(str(rebind.inspect(EVALUATOR_FILE)), highlight=False, soft_wrap=True)
    console.print()

    evaluator = rebind.load(EVALUATOR_FILE, key=key)
    trials = [
        rebind.Trial(
            model=partial(pruned, model.state_dict(), sparsity), task=finetune, name=f"{sparsity:.0%}"
        )
        for sparsity in SPARSITIES
    ]
    with rebind.run_trials(evaluator, trials, pool=rebind.LocalPool(workers=2), progress=True) as results:
        for result in results:
            if result.error is not None:
                raise result.error
    finished = sorted(results.finished, key=lambda result: -result.info["parameters"])
    console.print(table(finished))
    results.plot("parameters", PLOT_FILE)
    saved = f"{EVALUATOR_FILE} (the evaluator), {PLOT_FILE} (accuracy against parameters)"
    console.print(f"Saved: {saved}", soft_wrap=True)
    if as_json:
        print(json.dumps({"dense": dense, "trials": [told(result) for result in finished]}, indent=2))
    return verdict(console, dense, {result.name: result.score for result in finished})


def verdict(console: Console, dense: float, scores: dict[str, float | None]) -> int:
    """Tell whether the demo showed what it promises; 0 if so."""
    recovered = scores["75%"] or 0.0
    console.print(f"Finetuned at 75 % sparsity: {recovered:.3f}, dense: {dense:.3f}")
    if dense < 0.97:
        console.print("The dense model should reach 0.97.", style="red")
        return 1
    if recovered < dense - 0.03:
        console.print("Finetuning should come to within 0.03 of the dense model.", style="red")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
