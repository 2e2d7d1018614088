"""The Trainer's own optimizer and scheduler, built on the model that is bound."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from ...evaluator_schema.errors import BindError, TrainingError
from ..binding.optimized import match_optimized
from ..binding.reinitialise import Reinitialised
from ..naming.inventory import Inventory
from ..naming.matching import Match
from ..naming.renaming import Rename

_log = logging.getLogger("rebind")


@dataclass(frozen=True)
class TrainerBuilt(Reinitialised):
    """The optimizer and the scheduler of a Trainer, which are one each, or none.

    Attributes:
        is_scheduled_anew: Whether the Trainer builds a scheduler of its own for each training. It then takes
            the place of the one before in `lr_schedulers`.
    """

    is_scheduled_anew: bool = False


def build_optimizer(
    trainer: Any, inventory: Inventory, *, rename: Rename | None, current: Match | None
) -> TrainerBuilt:
    """Let a Trainer build its optimizer and its scheduler, for a training by its own limits.

    Args:
        trainer: A fresh Trainer around the model.
        inventory: The model.
        rename: From the names in the model that was bound so far, to carry state.
        current: Where the parameters were in that model.

    Raises:
        BindError: It builds no optimizer of torch, or one without any parameter of the model.
    """
    name = f"create_optimizer of {type(trainer).__name__}"
    if not any(parameter.requires_grad for parameter in inventory.parameters.values()):
        _log.warning("the model has nothing to train, so the Trainer builds no optimizer")
        return TrainerBuilt([], [], match_optimized([], inventory, rename, current, builder=_BUILDER))
    try:
        trainer.create_optimizer()
    except Exception as error:
        raise BindError(f"{name}: {error}") from error
    optimizer = trainer.optimizer
    if not isinstance(optimizer, Optimizer):
        raise BindError(f"{name} gives a {type(optimizer).__name__}, and no optimizer of torch")
    matched = match_optimized([optimizer], inventory, rename, current, builder=_BUILDER)
    if not any(matched.found.values()):
        raise BindError(f"{name} optimizes no parameter of the model that is bound")
    return TrainerBuilt([optimizer], default_schedulers(trainer, optimizer), matched, is_scheduled_anew=True)


_BUILDER = (
    "the Trainer builds one for the model that is bound; to have one recorded, pass "
    "optimizers=(trace(AdamW)(...), None) to the Trainer"
)


def default_schedulers(trainer: Any, optimizer: Optimizer) -> list[Any]:
    """Let a Trainer build its scheduler for a training by its own limits; none where it has no data."""
    if trainer.train_dataset is None:
        return []
    loader = trainer.get_train_dataloader()
    *_, steps = trainer.set_initial_training_values(trainer.args, loader)
    return [new_scheduler(trainer, optimizer, steps)]


def new_scheduler(trainer: Any, optimizer: Optimizer, steps: int) -> Any:
    """Let a Trainer build its scheduler on an optimizer.

    Args:
        trainer: The Trainer.
        optimizer: The optimizer, and not accelerate's wrapper, which is of one training only.
        steps: The length of the schedule.
    """
    wrapped, trainer.optimizer = trainer.optimizer, optimizer
    trainer.lr_scheduler = None
    try:
        type(trainer).create_scheduler(trainer, num_training_steps=steps)
    finally:
        trainer.optimizer = wrapped
    return trainer.lr_scheduler


def give_optimizer(trainer: Any, built: TrainerBuilt) -> None:
    """Let a fresh Trainer train with the optimizer and the scheduler of a binding.

    Args:
        trainer: The Trainer. Two methods of this one object are replaced.
        built: What the binding has.

    Raises:
        TrainingError: There is nothing to train.
    """
    if not built.optimizers:
        raise TrainingError(
            "no parameter of the model requires a gradient, so there is nothing to train; let some train, "
            "and call binding.rebind(model)"
        )
    optimizer = built.optimizers[0]

    def create_optimizer(_: Any = None) -> Any:
        return trainer.optimizer

    def create_scheduler(num_training_steps: int, _: Any = None) -> Any:
        if built.is_scheduled_anew:
            built.lr_schedulers[:] = [new_scheduler(trainer, optimizer, num_training_steps)]
        trainer.lr_scheduler = built.lr_schedulers[0]
        return trainer.lr_scheduler

    trainer.optimizer = optimizer
    trainer.create_optimizer, trainer.create_scheduler = create_optimizer, create_scheduler
