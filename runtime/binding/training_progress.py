"""A live bar for a training that takes long, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..live_bar import live_bar
from .events import Event, Listeners

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# A training that is over before this many seconds shows nothing.
_PATIENCE = 3.0
_INTERVAL = 0.2


@contextmanager
def showing_training(listeners: Listeners, progress: bool | None) -> Iterator[None]:  # noqa: FBT001 - a choice of three
    """Show the steps and the loss of a training.

    Args:
        listeners: Whom the training tells.
        progress: Whether to show it; None shows it on a terminal only, once it has taken some seconds.
    """
    terminal = bool(getattr(sys.stderr, "isatty", bool)())
    if progress is False or (progress is None and not terminal):
        yield
        return
    bar = _Bar(patience=0.0 if progress else _PATIENCE)
    handle = listeners.add(bar.show)
    try:
        yield
    finally:
        handle.revert()
        bar.close()


class _Bar:
    """Drawn when an event comes and the last drawing is old enough, so that no thread has to be ended."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._next = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._begun = 0

    def show(self, event: Event) -> None:
        if event.kind == "begin":
            self._begun = event.step
        if event.seconds < self._patience or (event.seconds < self._next and event.kind != "end"):
            return
        self._next = event.seconds + _INTERVAL
        if self._bar is None or self._task is None:
            self._bar = live_bar()
            self._bar.start()
            self._task = self._bar.add_task("training", total=event.max_steps, told="")
        loss = f"loss {event.loss:.4g}" if event.loss is not None else ""
        self._bar.update(self._task, completed=event.step - self._begun, told=loss, refresh=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
