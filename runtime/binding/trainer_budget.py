"""Counting the steps of a training that a trainer runs, which is ended by the trainer's own means."""

from __future__ import annotations

import time

from .budget import Budget


class TrainerBudget(Budget):
    """A limit on a training by a trainer, which asks here between its batches whether to go on.

    So everything that the trainer does at the end of a training is done.
    """

    wants_to_end: bool = False
    """Whether no further batch should begin."""

    def end(self) -> None:
        """Let no step be made any more, not even the one that is under way."""
        self._ending = self.wants_to_end = True

    def finish_step(self) -> None:
        """Be told that everything around a step is done."""
        if time.monotonic() >= self._deadline:
            self.wants_to_end = True
