"""A pruning sweep by Lightning: the user's LightningModule and data module, on pruned models in workers.

A CNN for scikit-learn's handwritten digits is a LightningModule. How it is trained and evaluated becomes one
evaluator: the traced Trainer and data module. Each trial prunes a part of each layer's channels, finetunes in
a worker process, and gives the accuracy; the module's own `configure_optimizers` builds the optimizer anew.
"""

from __future__ import annotations

import logging
import sys
import warnings
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from digits import digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import rebind

SPARSITIES = (0.25, 0.5, 0.75)


class Digits(pl.LightningDataModule):
    """1,347 images to train on, and 450 to test."""

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Load the images."""
        train_x, train_y, test_x, test_y = digits()
        self.training, self.test = TensorDataset(train_x, train_y), TensorDataset(test_x, test_y)

    def train_dataloader(self) -> Any:
        """Give the training images, shuffled."""
        return DataLoader(self.training, self.batch_size, shuffle=True)

    def test_dataloader(self) -> Any:
        """Give the test images."""
        return DataLoader(self.test, 450)


class Classifier(pl.LightningModule):
    """Two convolutions and a linear layer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Linear(width * 2 * 2, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Give the scores of the 10 classes."""
        scores: Tensor = self.classifier(self.features(images).flatten(1))
        return scores

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Give the loss of a batch."""
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log the accuracy; `default` is the metric that an evaluator takes as the score."""
        images, labels = batch
        self.log("default", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> Any:
        """Decay the learning rate over the whole training, however long the trainer makes it."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        steps = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def pruned(weights: dict[str, Tensor], sparsity: float) -> Classifier:
    """Build the trained module, and remove a part of each layer's channels, those of the smallest norm."""
    import torch_pruning as tp

    quiet()
    module = Classifier()
    module.load_state_dict(weights)
    tp.pruner.MagnitudePruner(
        module,
        torch.zeros(1, 1, 8, 8),
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=sparsity,
        ignored_layers=[module.classifier],
    ).step()
    return module.train()  # torch-pruning left it in evaluation mode, and Lightning trains it as it is


def finetune(binding: rebind.Binding) -> rebind.Evaluation:
    """Evaluate, finetune, evaluate again: what each trial does."""
    before, _ = binding.evaluate()
    binding.finetune()
    after, _ = binding.evaluate()
    size = sum(parameter.numel() for parameter in binding.model.parameters())
    return rebind.Evaluation(after, {"parameters": size, "after pruning": before})


def quiet() -> None:
    """Leave out what Lightning tells of devices and workers."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers")
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.* is deprecated")


def sweep(epochs: int = 4, workers: int = 2) -> tuple[float, dict[str, rebind.TrialResult]]:
    """Train the module, and run the sweep.

    Returns:
        The accuracy of the whole module, and the results of the trials by their names.
    """
    quiet()
    trainer = rebind.trace(pl.Trainer)(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    evaluator = rebind.LightningEvaluator(trainer, rebind.trace(Digits)(batch_size=64))
    torch.manual_seed(0)
    module = Classifier()
    with rebind.bind(evaluator, module) as binding:
        binding.train()
        dense, _ = binding.evaluate()
    trials = [
        rebind.Trial(
            model=partial(pruned, module.state_dict(), sparsity), task=finetune, name=f"{sparsity:.0%}"
        )
        for sparsity in SPARSITIES
    ]
    with rebind.run_trials(evaluator, trials, pool=rebind.LocalPool(workers=workers)) as results:
        found = {result.name: result for result in results}
    return float(dense or 0), found


def main() -> int:
    """Run the sweep, and print its table; 1 if a trial failed."""
    dense, results = sweep()
    print(f"dense: {dense:.3f}")
    for name, result in results.items():
        if result.error is not None:
            raise result.error
        before = result.info["after pruning"]
        size = f"{result.info['parameters']:,} parameters"
        print(f"{name} pruned: {size}, {before:.3f} -> {result.score or 0:.3f}")
    return int(any(result.error is not None for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
