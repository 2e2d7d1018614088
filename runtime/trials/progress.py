"""What a person sees while trials run: a bar on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..live_bar import live_bar
from .results import best_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from .results import TrialResult


_MOST_SHOWN = 4  # trials whose steps fit beside the bar


class Progress:
    """Shows nothing; what the other kinds have in common.

    Attributes:
        interval: Seconds between two calls of `tick`, or None where none are needed.
    """

    interval: float | None = None

    def __init__(self, total: int) -> None:
        self.total = total
        self.done: int = 0
        self.failed: int = 0
        self.best: TrialResult | None = None
        self._began = time.monotonic()

    def tick(self, running: int, steps: Mapping[str, str] | None = None) -> None:
        """Time has passed; so many trials are running, and some tell how far they are."""

    def finished(self, result: TrialResult) -> None:
        """A trial has finished."""
        self.done += 1
        self.failed += result.error is not None
        self.best = best_of([result] if self.best is None else [self.best, result])

    def summary(self) -> str:
        """The failures, the rate and the best score, in few words."""
        parts = [f"{self.failed} failed"] if self.failed else []
        if self.done:
            parts.append(f"{self.done / max(time.monotonic() - self._began, 1e-9):.3g}/s")
        if self.best is not None:
            parts.append(f"best {self.best.score:.4g} ({self.best.name})")
        return ", ".join(parts)


class Lines(Progress):
    """A line on the error stream for each trial."""

    def finished(self, result: TrialResult) -> None:
        """Print how the trial went."""
        super().finished(result)
        if result.error is not None:
            told = str(result.error)
        elif result.score is not None:
            told = f"score {result.score:.6g}"
        else:
            told = "done"
        line = f"[{self.done}/{self.total}] {result.name}: {told} ({result.seconds:.1f} s)"
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - printing is what it is for


class Bar(Progress):
    """A live bar. It is redrawn by `tick`, so that no thread has to be ended."""

    interval: float | None = 0.2

    def __init__(self, total: int, bar: RichProgress) -> None:
        super().__init__(total)
        self._bar = bar
        self._task: TaskID = bar.add_task("trials", total=total, told="")

    def tick(self, running: int, steps: Mapping[str, str] | None = None) -> None:
        """Redraw."""
        shown = [f"{name} {told}" for name, told in list((steps or {}).items())[:_MOST_SHOWN]]
        told = ", ".join(part for part in (f"{running} running", self.summary(), *shown) if part)
        self._bar.update(self._task, completed=self.done, told=told)
        self._bar.refresh()

    def finished(self, result: TrialResult) -> None:
        """Redraw with the new count."""
        super().finished(result)
        self._bar.update(self._task, completed=self.done, told=self.summary())
        self._bar.refresh()


@contextmanager
def showing(total: int, progress: bool | None) -> Iterator[Progress]:  # noqa: FBT001 - a choice of three
    """The progress display of one run.

    Args:
        total: How many trials there are.
        progress: Whether to show it; None shows it on a terminal only.
    """
    terminal = bool(getattr(sys.stderr, "isatty", bool)())
    if progress is False or (progress is None and not terminal):
        yield Progress(total)
    elif not terminal:
        yield Lines(total)
    else:
        with live_bar() as bar:
            yield Bar(total, bar)
