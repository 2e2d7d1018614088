"""What a training reports while it runs: its steps and losses, and that it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..patching.handles import Handle
from ..patching.loss_patches import PatchedCriterion

Kind = Literal["begin", "step", "epoch", "end"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a training: what listeners (`Binding.on_event`) get.

    Attributes:
        kind: `"begin"` and `"end"` of a training, each optimizer `"step"`, and each `"epoch"` where the
            trainer tells of them (a loop of the user's own does not).
        step: How many steps the busiest optimizer of the binding has made so far.
        epoch: How many epochs were completed; None where nobody tells.
        max_steps: The limit of this training, if it has one.
        seconds: Since this training began.
        loss_tensor: The last loss, patches included, wherever it was computed; None before the first.
    """

    kind: Kind
    step: int
    epoch: int | None = None
    max_steps: int | None = None
    seconds: float = 0.0
    loss_tensor: torch.Tensor | None = None

    @property
    def loss(self) -> float | None:
        """The last loss as a number. Reading it waits for the device that computes it."""
        return None if self.loss_tensor is None else float(self.loss_tensor)


Listener = Callable[[Event], Any]


@dataclass(frozen=True, eq=False)
class _Listening:
    listener: Listener


class Listeners(list[_Listening]):
    """Those who want to know, and what they are told. As long as there is nobody, it costs nothing."""

    def __init__(self, criterion: PatchedCriterion | None) -> None:
        super().__init__()
        self._criterion = criterion
        self._began = time.monotonic()
        self._before = 0
        self._max_steps: int | None = None

    def add(self, listener: Listener) -> Handle:
        """Tell a function of each event from now on."""
        listening = _Listening(listener)
        self.append(listening)
        self._watch_losses()
        return Handle(lambda: self._leave(listening), "an event listener")

    def begin(self, steps: int, max_steps: int | None) -> None:
        """Tell that a training begins.

        Args:
            steps: How many steps were made before it.
            max_steps: How many it may make.
        """
        self._began, self._before = time.monotonic(), steps
        self._max_steps = max_steps
        if self._criterion is not None:
            self._criterion._rebind_last_loss = None
        self.tell("begin", steps)

    def tell_step(self, steps: int) -> None:
        """Tell of a step, the `steps`-th of the training, with its loss."""
        self.tell("step", self._before + steps)

    def tell(self, kind: Kind, step: int, *, epoch: int | None = None) -> None:
        """Tell everybody."""
        if not self:
            return
        loss = None if self._criterion is None else self._criterion._rebind_last_loss
        event = Event(kind, step, epoch, self._max_steps, time.monotonic() - self._began, loss)
        for listening in self[:]:
            listening.listener(event)

    def _leave(self, listening: _Listening) -> None:
        self[:] = [kept for kept in self if kept is not listening]
        self._watch_losses()

    def _watch_losses(self) -> None:
        if self._criterion is not None:
            self._criterion._rebind_watched = bool(self)
