"""What comes out of a run: one `TrialResult` per trial, and `Results`, which yields them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from ...evaluator_schema.display import html_table
from .closing import Closing

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from os import PathLike

    import pandas as pd
    from matplotlib.figure import Figure

    from ...evaluator_schema.errors import TrialError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What one trial gave.

    Attributes:
        name: The trial's.
        score: Its score, higher being better, or None where the task gave none.
        info: What else the evaluation told.
        value: What the task returned, where that was neither a score nor an evaluation.
        state_dict: The model's weights after the task, where `run_trials` was asked for them.
        seconds: How long the trial took in its worker; of several attempts, the last one.
        error: Why there is no result, or None. The traceback in the worker is its cause.
        process_id: The worker's, or None where the trial never reached one.
        attempts: How many times the trial was begun.
    """

    name: str
    score: float | None = None
    info: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    state_dict: dict[str, Any] | None = field(default=None, repr=False)
    seconds: float = 0.0
    error: TrialError | None = None
    process_id: int | None = None
    attempts: int = 1

    def __repr__(self) -> str:
        parts = [f"name={self.name!r}"]
        parts += [f"score={self.score:.6g}"] if self.score is not None else []
        parts += [f"info={self.info!r}"] if self.info else []
        parts += [f"value={self.value!r}"] if self.value is not None else []
        parts += [f"state_dict={len(self.state_dict)} entries"] if self.state_dict else []
        parts += [f"seconds={self.seconds:.3g}"]
        parts += [f"error={self.error!r}"] if self.error is not None else []
        return f"TrialResult({', '.join(parts)})"

    def _repr_html_(self) -> str:
        from .report import rows

        return html_table(f"TrialResult {self.name}", rows([self]))


def best_of(results: Iterable[TrialResult]) -> TrialResult | None:
    """The result with the highest score, of those without an error; None where there is none."""
    scored = [r for r in results if r.error is None and _is_number(r.score)]
    return max(scored, key=lambda result: result.score or 0.0, default=None)


class Results(Closing, Iterator[TrialResult]):
    """The results of a run, in the order in which the trials finish.

    Nothing starts before the first result is asked for. Leaving the `with` block, `close()`, an
    exception and an abandoned iterator all end the run and its workers.

    The summaries (`best`, `failed`, `to_frame`, `plot`) speak of the trials that have finished so
    far; where none has been asked for yet, they first run all of them.

    Args:
        source: Runs the trials.
        names: The trials' names, in the order given.
        cancelled: Where the run looks for the names of trials that are no longer wanted.
    """

    def __init__(
        self,
        source: Generator[TrialResult, None, None],
        names: Sequence[str],
        cancelled: set[str] | None = None,
    ) -> None:
        self._source = source
        self._names = tuple(names)
        self._finished: list[TrialResult] = []
        self._begun = False
        self._cancelled = set() if cancelled is None else cancelled

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TrialResult:
        self._begun = True
        result = next(self._source)
        self._finished.append(result)
        return result

    def wait(self) -> Self:
        """Run all trials that are left."""
        for _ in self:
            pass
        return self

    def cancel(self, *names: str) -> None:
        """Stop these trials, whether they wait or run; each gives a `TrialCancelledError` as its result.

        May be called from another thread. A trial that has finished stays as it is; one that is
        running in this process (`SerialPool`) cannot be stopped.

        Args:
            *names: Of the trials.

        Raises:
            KeyError: There is no such trial.
        """
        unknown = [name for name in names if name not in self._names]
        if unknown:
            raise KeyError(f"there is no trial {unknown[0]!r} in this run")
        self._cancelled.update(names)

    def close(self) -> None:
        """End the run; trials that have not finished are dropped."""
        self._begun = True
        self._source.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all trials, in the order given."""
        return self._names

    @property
    def finished(self) -> tuple[TrialResult, ...]:
        """The results so far, in the order in which they came. Starts nothing."""
        return tuple(self._finished)

    @property
    def best(self) -> TrialResult | None:
        """The result with the highest score; None where no trial gave one."""
        return best_of(self._summarised())

    @property
    def failed(self) -> tuple[TrialResult, ...]:
        """The results with an error."""
        return tuple(result for result in self._summarised() if result.error is not None)

    def to_frame(self) -> pd.DataFrame:
        """A table with a row per trial, in the order given, and a column per entry of `info`.

        Raises:
            ImportError: pandas is not installed; it comes with `rebind[frame]`.
        """
        from .report import to_frame

        return to_frame(self._in_order())

    def plot(self, column: str, path: str | PathLike[str] | None = None) -> Figure:
        """Draw the scores against any column of the table.

        Args:
            column: The column, for instance an entry of `info`.
            path: Where to save the figure, if anywhere; the suffix decides the format.

        Raises:
            ImportError: matplotlib is not installed; it comes with `rebind[plot]`.
            KeyError: There is no such column.
        """
        from .report import plot

        return plot(self._in_order(), column, path)

    def _summarised(self) -> list[TrialResult]:
        if not self._begun:
            self.wait()
        return self._finished

    def _in_order(self) -> list[TrialResult]:
        place = {name: index for index, name in enumerate(self._names)}
        return sorted(self._summarised(), key=lambda result: place[result.name])

    def __repr__(self) -> str:
        parts = [f"{len(self._finished)} of {len(self._names)} trials finished"]
        failed = sum(result.error is not None for result in self._finished)
        parts += [f"{failed} failed"] if failed else []
        best = best_of(self._finished)
        parts += [f"best {best.score:.6g} by {best.name!r}"] if best is not None else []
        return f"Results({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """The trials that have finished, as a table. Starts nothing."""
        from .report import rows

        place = {name: index for index, name in enumerate(self._names)}
        return html_table(repr(self), rows(sorted(self._finished, key=lambda result: place[result.name])))


def _is_number(score: float | None) -> bool:
    return score is not None and not math.isnan(score)
