"""`rebind run`: trials of the evaluator in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...serialization import load
from ...serialization.tree import printable
from ..pools import LocalPool, SerialPool
from ..trials.report import rows
from ..trials.running import run_trials
from .colour import show
from .diff import shown
from .keys import keys_of
from .models import trials_of
from .outcomes import DONE, NEGATIVE, complain, print_json

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from ..pools import Pool
    from ..trials.results import TrialResult


def command(options: Namespace) -> int:
    """Run one trial for each model, and print their results in the order of the models."""
    # As `python -m` has it: a user's own modules lie where the command is called.
    sys.path.insert(0, str(Path.cwd()))
    evaluator = load(options.file, keys_of(options), options.trusted, allow=options.allow)
    trials = trials_of(options)
    with run_trials(
        evaluator,
        trials,
        _pool(options.workers),
        seed=options.seed,
        retries=options.retries,
        timeout=options.timeout,
    ) as results:
        results.wait()
        place = {name: number for number, name in enumerate(results.names)}
        finished = sorted(results.finished, key=lambda result: place[result.name])
    if options.json:
        print_json([_told(result) for result in finished])
    else:
        _print_table(finished)
    failed = [result for result in finished if result.error is not None]
    for result in failed:
        complain(f"{type(result.error).__name__}: {result.error}")
    return NEGATIVE if failed else DONE


def _pool(workers: int | None) -> Pool | None:
    if workers is None:
        return None
    return LocalPool(workers) if workers else SerialPool()


def _told(result: TrialResult) -> dict[str, Any]:
    error = result.error
    return {
        "name": result.name,
        "score": shown(result.score),
        "info": {str(name): shown(value) for name, value in result.info.items()},
        "value": shown(result.value),
        "seconds": result.seconds,
        "attempts": result.attempts,
        "error": error and {"type": type(error).__name__, "message": str(error), "cause": _cause(error)},
    }


def _cause(error: BaseException) -> str | None:
    """The traceback in the worker."""
    return None if error.__cause__ is None else str(error.__cause__)


def _print_table(results: Sequence[TrialResult]) -> None:
    from rich.table import Table

    table = [{**row, "error": row["error"] and type(row["error"]).__name__} for row in rows(results)]
    names = dict.fromkeys(name for row in table for name in row if name != "process_id")
    drawn = Table()
    for name in names:
        drawn.add_column(printable(name), style="red" if name == "error" else None)
    for row in table:
        drawn.add_row(*(printable(_cell(row.get(name))) for name in names))
    show(drawn)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
