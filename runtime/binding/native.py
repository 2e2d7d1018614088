"""A training loop of the user's own, as a `TorchEvaluator` has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import Module

from ...evaluator_schema.checking.checks import options_of
from ...evaluator_schema.errors import EvaluationError, TrainingError
from ...evaluator_schema.torch_evaluator import TorchEvaluator
from ..naming.inventory import Inventory
from ..naming.matching import Match, Missing
from ..naming.renaming import Rename
from .evaluation import Evaluation, evaluation_of
from .framework import Framework, Training
from .reinitialise import Reinitialised, reinitialise


class Native(Framework):
    """Calls the user's functions."""

    def __init__(self, evaluator: TorchEvaluator) -> None:
        self._evaluator = evaluator
        self.criterion: Callable[..., Any] | None = evaluator.criterion or evaluator.training_step

    def check_model(self, model: Module) -> None:
        """Take any module."""

    def build(
        self, inventory: Inventory, *, rename: Rename | None, missing: Missing, current: Match | None
    ) -> Reinitialised:
        """Build what the evaluator has recorded."""
        evaluator = self._evaluator
        return reinitialise(
            evaluator,
            inventory,
            evaluator.optimizers,
            evaluator.lr_schedulers,
            rename=rename,
            missing=missing,
            current=current,
        )

    def check_limits(self, max_epochs: int | None) -> None:
        """Refuse a number of epochs where the training function does not take it."""
        if max_epochs is not None and "max_epochs" not in options_of(self._evaluator.training_func):
            raise TrainingError(
                "max_epochs was given, and training_func does not take it; add the argument max_epochs, or "
                "limit the training with max_steps"
            )

    def train(self, training: Training) -> None:
        """Call the training function with the options that it takes."""
        function = self._evaluator.training_func
        takes = options_of(function)
        options = {
            "lr_schedulers": training.built.lr_schedulers,
            "max_steps": training.max_steps,
            "max_epochs": training.max_epochs,
        }
        function(
            training.model,
            training.built.optimizers,
            training.criterion,
            **{name: value for name, value in options.items() if name in takes},
        )

    def evaluate(self, model: Module) -> Evaluation:
        """Call the evaluating function."""
        function = self._evaluator.evaluating_func
        if function is None:
            raise EvaluationError("this evaluator has no evaluating_func; create it with evaluating_func=")
        return evaluation_of(function(model))

    def dummy_input(self, model: Module) -> Any:  # noqa: ARG002 - it was given
        """Give the one that the evaluator was created with."""
        return self._evaluator.dummy_input
