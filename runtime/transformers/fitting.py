"""One training by a fresh Trainer, with the optimizer of a binding and its patches."""

from __future__ import annotations

from typing import Any

from ...evaluator_schema.errors import TrainingError
from ..binding.framework import Training
from ..binding.trainer_budget import TrainerBudget
from .following import following
from .losses import patch_losses
from .optimizing import TrainerBuilt, give_optimizer


def fit(trainer: Any, training: Training) -> None:
    """Train with a fresh Trainer, whose arguments have the limits of this training.

    What is particular to a binding goes onto the Trainer, which is its own: a callback and some methods.

    Raises:
        TrainingError: There is no data, or nothing to train.
    """
    budget, built = training.budget, training.built
    assert isinstance(budget, TrainerBudget)  # noqa: S101 - what our own framework made
    assert isinstance(built, TrainerBuilt)  # noqa: S101 - likewise
    _check_data(trainer)
    if _is_limited_to_nothing(trainer.args):
        return  # recorded so, and transformers would make a step
    give_optimizer(trainer, built)
    if training.criterion is not None:
        patch_losses(trainer, training.criterion)
    trainer.add_callback(following(training, budget))
    if not budget.wants_to_end:
        trainer.train()


def _is_limited_to_nothing(args: Any) -> bool:
    # Epochs count where no steps are told.
    return bool(args.max_steps == 0 or (args.max_steps < 0 and args.num_train_epochs == 0))


def _check_data(trainer: Any) -> None:
    if trainer.train_dataset is None and type(trainer).get_train_dataloader is _own_loader():
        raise TrainingError(
            "the recorded Trainer has no training data: give it train_dataset= where it is built"
        )


def _own_loader() -> Any:
    from transformers import Trainer

    return Trainer.get_train_dataloader
