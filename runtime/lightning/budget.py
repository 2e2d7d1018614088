"""Counting the optimizer steps of a fit, and ending it by Lightning's own means."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from ..binding.trainer_budget import TrainerBudget


class StepRefused(StopIteration):
    """Ends the batch under way before a step that may not be made.

    Lightning's loops take a `StopIteration` as the end of an epoch, so everything else runs as usual.
    """


class FitBudget(TrainerBudget):
    """A limit on a fit. The trainer's own limits end it; this counts, and covers what they do not.

    Lightning counts the steps of all optimizers together, so where they do not take turns evenly one of
    them would make too many. It knows of no `stop()`, and looks at its clock in another way.
    """

    _trainer: Any = None

    def follow(self, trainer: Any) -> None:
        """Know the trainer, to be able to end it."""
        self._trainer = trainer

    def begin_step(self, optimizer: Optimizer) -> None:
        """Be asked by an optimizer that is about to make a step."""
        if self._ending or self._counts[id(optimizer)] == self._max_steps:
            end_fit(self._trainer)
            raise StepRefused


def end_fit(trainer: Any) -> None:
    """Let a trainer begin no further batch, whatever it was to do at least."""
    trainer.fit_loop.min_epochs = 0
    trainer.fit_loop.epoch_loop.min_steps = None
    trainer.should_stop = True
