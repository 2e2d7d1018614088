"""Training and evaluating by transformers' Trainer, as a `TransformersEvaluator` has it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar

from torch.nn import Module

from ...evaluator_schema.errors import BindError
from ...evaluator_schema.transformers_evaluator import TransformersEvaluator
from ..binding.budget import Budget
from ..binding.evaluation import Evaluation
from ..binding.framework import Framework, Training
from ..binding.modes import keeping_modes
from ..binding.precision import keeping_precision
from ..binding.reinitialise import Reinitialised, reinitialise
from ..binding.trainer_budget import TrainerBudget
from ..binding.training_step import training_step_of_a_trainer
from ..naming.inventory import Inventory
from ..naming.matching import Match, Missing
from ..naming.renaming import Rename
from ..trials.seeding import random_state_kept
from .constructing import check_epochs_end, construct
from .evaluating import run_evaluation
from .fitting import fit
from .optimizing import TrainerBuilt, build_optimizer, default_schedulers
from .residue import without_residue
from .sampling import sample_input


class Transformers(Framework):
    """Constructs a Trainer for each training and each evaluation.

    A Trainer seeds all generators when it is constructed; where that is for no training, they are put back.
    """

    budget: ClassVar[type[Budget]] = TrainerBudget

    def __init__(self, evaluator: TransformersEvaluator) -> None:
        _require_installed()
        self._evaluator = evaluator
        self.criterion: Callable[..., Any] | None = training_step_of_a_trainer("the loss of a Trainer")
        self._sampled: tuple[weakref.ref[Module], Any] | None = None

    def check_model(self, model: Module) -> None:
        """Take any module."""

    def build(
        self, inventory: Inventory, *, rename: Rename | None, missing: Missing, current: Match | None
    ) -> Reinitialised:
        """Build what the evaluator has recorded, or let a Trainer do it."""
        evaluator, model = self._evaluator, inventory.model
        with random_state_kept(), without_residue(model):
            trainer = construct(evaluator, model)
            if evaluator.optimizers is None:
                return build_optimizer(trainer, inventory, rename=rename, current=current)
            plain = reinitialise(
                evaluator,
                inventory,
                evaluator.optimizers,
                evaluator.lr_schedulers,
                rename=rename,
                missing=missing,
                current=current,
            )
            if plain.lr_schedulers is not None:
                return TrainerBuilt([plain.optimizers], [plain.lr_schedulers], plain.match)
            schedulers = default_schedulers(trainer, plain.optimizers)
            return TrainerBuilt([plain.optimizers], schedulers, plain.match, is_scheduled_anew=True)

    def check_limits(self, max_epochs: int | None) -> None:
        """Take any limit: the Trainer counts steps and epochs."""

    def train(self, training: Training) -> None:
        """Train with a fresh Trainer."""
        if training.max_epochs is not None and training.max_steps is None:
            check_epochs_end(self._evaluator)
        with without_residue(training.model):
            trainer = construct(
                self._evaluator,
                training.model,
                max_steps=training.max_steps,
                max_epochs=training.max_epochs,
            )
            fit(trainer, training)

    def evaluate(self, model: Module) -> Evaluation:
        """Evaluate with a fresh Trainer, which puts the model into evaluation mode; it is put back."""
        with random_state_kept(), keeping_modes(model), keeping_precision(model), without_residue(model):
            return run_evaluation(construct(self._evaluator, model))

    def dummy_input(self, model: Module) -> Any:
        """Give the evaluator's own, or one from the data, which is read once for a model."""
        if self._evaluator.dummy_input is not None:
            return self._evaluator.dummy_input
        if self._sampled is None or self._sampled[0]() is not model:
            with random_state_kept(), without_residue(model):
                sampled = sample_input(construct(self._evaluator, model))
            self._sampled = weakref.ref(model), sampled
        return self._sampled[1]


def _require_installed() -> None:
    missing = [name for name in ("transformers", "accelerate") if find_spec(name) is None]
    if missing:
        raise BindError(
            f"a TransformersEvaluator trains with {' and '.join(missing)}, not installed here: "
            "pip install 'rebind[transformers]'"
        )
