"""The callback through which a binding follows a fit."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from ...evaluator_schema.lightning_kinds import Package
from ..binding.framework import Training
from .budget import FitBudget, end_fit


def following(package: Package, training: Training, budget: FitBudget) -> Any:
    """Make a callback of one of Lightning's two packages: step tasks, epochs, and the end of the budget."""
    return _callback_class(package)(training, budget)


@cache
def _callback_class(package: Package) -> type:
    """Make the class: whose `Callback` it derives from depends on the package."""
    base: Any = import_module(f"{package}.callbacks").Callback

    class Following(base):  # type: ignore[misc]  # known when it is first used
        """Calls what belongs to a binding at Lightning's own hook points."""

        # Lightning passes over a hook that cannot be called; one that does nothing costs as much as another.
        on_train_batch_start = on_before_zero_grad = on_before_backward = on_after_backward = None
        on_validation_batch_start = on_validation_batch_end = None

        def __init__(self, training: Training, budget: FitBudget) -> None:
            self._training = training
            self._budget = budget
            self._trainer: Any = None
            self._has_others = False
            self._is_changed = True

        def on_fit_start(self, trainer: Any, module: Any) -> None:
            """See whether there are other processes, and whether gradients may be changed before a step."""
            self._trainer = trainer
            self._has_others = trainer.world_size > 1
            self._is_changed = _may_change_gradients(package, trainer, module)

        @property
        def on_before_optimizer_step(self) -> Any:
            """What is to be called before a step that may be made with other gradients."""
            is_changed = self._is_changed or self._trainer.gradient_clip_val is not None
            return self._announce if is_changed else None

        def _announce(self, trainer: Any, module: Any, optimizer: Any) -> None:  # noqa: ARG002 - as its caller calls it
            """Run the tasks before a step: gradients are complete and unscaled, and not yet clipped."""
            for steps in self._training.steps:
                if steps.optimizer is optimizer:
                    steps.announce()

        @property
        def on_train_batch_end(self) -> Any:
            """What is to be called after a batch, if anything is."""
            budget = self._budget
            may_end = self._has_others or budget.wants_to_end or budget.is_spent
            return self._end_if_agreed if may_end else None

        def _end_if_agreed(self, trainer: Any, *_: Any) -> None:
            """End the fit where the budget says so; all processes have to agree."""
            wants = self._budget.wants_to_end
            if self._has_others:
                wants = trainer.strategy.reduce_boolean_decision(wants, all=False)
            if wants or (self._budget.is_spent and trainer.global_step < trainer.max_steps):
                end_fit(trainer)

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:  # noqa: ARG002 - as its caller calls it
            """Tell those who listen."""
            self._training.tell_epoch(trainer.current_epoch + 1)

    return Following


def _may_change_gradients(package: Package, trainer: Any, module: Any) -> bool:
    """Tell whether anybody comes between the gradients and the step: else the step itself runs the tasks."""
    is_overridden = import_module(f"{package}.utilities.model_helpers").is_overridden
    precision = import_module(f"{package}.plugins.precision").Precision
    return type(trainer.precision_plugin) is not precision or any(
        is_overridden(name, module) for name in _BETWEEN
    )


# What Lightning calls of a module when the gradients are there, and before its optimizer's step.
_BETWEEN = ("on_before_optimizer_step", "configure_gradient_clipping")
