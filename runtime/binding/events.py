"""What a training reports while it runs: its steps and losses, and that it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..patching.handles import Handle

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


class Listeners:
    """Those who want to know, and what they are told."""

    def __init__(self) -> None:
        self._listeners: list[_Listening] = []
        self._began = time.monotonic()
        self._max_steps: int | None = None
        self._loss: torch.Tensor | None = None

    def add(self, listener: Listener) -> Handle:
        """Tell a function of each event from now on."""
        listening = _Listening(listener)
        self._listeners.append(listening)
        return Handle(lambda: self._remove(listening), "an event listener")

    def begin(self, step: int, max_steps: int | None) -> None:
        """Tell that a training begins."""
        self._began, self._max_steps, self._loss = time.monotonic(), max_steps, None
        self.tell("begin", step)

    def tell(
        self, kind: Kind, step: int, *, epoch: int | None = None, loss: torch.Tensor | None = None
    ) -> None:
        """Tell everybody. Costs nothing where nobody listens."""
        if not self._listeners:
            return
        self._loss = self._loss if loss is None else loss
        event = Event(kind, step, epoch, self._max_steps, time.monotonic() - self._began, self._loss)
        for listening in list(self._listeners):
            listening.listener(event)

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def _remove(self, listening: _Listening) -> None:
        self._listeners = [kept for kept in self._listeners if kept is not listening]


@dataclass(frozen=True, eq=False)
class _Listening:
    listener: Listener
