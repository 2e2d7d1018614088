"""`run_trials`: one evaluator, many models, a pool of workers.

::

    Trial --Packer--> Job --Pool--> Outcome --Driver--> TrialResult
                       |
                       +-- in the worker: Executor, from bytes to bytes
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from ...evaluator_schema.errors import TrialError
from ...serialization import SigningKey
from ..pools import Briefing, LocalPool, Pool
from .conditions import current_settings
from .driver import Driver, Terms
from .execute import Executor, make_context
from .leases import leases_for
from .packing import Packer, Plan
from .progress import showing
from .results import Results
from .saved import SavedResults, Saving
from .scoreboard import Scoreboard
from .shelf import Shelf
from .trial import Trial

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from os import PathLike

    from .results import TrialResult

_LONGEST_WAIT = 0.5  # seconds until a cancellation from another thread is seen
_HANDLER = f"{Executor.__module__}:{Executor.__qualname__}"


def run_trials(
    evaluator: Any,
    trials: Iterable[Trial],
    pool: Pool | None = None,
    *,
    seed: int = 0,
    retries: int = 1,
    timeout: float | None = None,
    progress: bool | None = None,
    state_dicts: bool = False,
    gpus_per_trial: int = 0,
    file: str | PathLike[str] | None = None,
    key: SigningKey | None = None,
    trusted: bool = False,
) -> Results:
    """Run trials of one evaluator, a few at a time, and yield their results as they finish.

    Nothing starts before the first result is asked for. A trial that goes wrong is a result with an
    `error`; the others go on. The same evaluator, models and seed give the same bits in every pool,
    with any number of workers.

    Args:
        evaluator: The evaluator that is bound to each model.
        trials: The models, and what to do with them. A model is copied when its trial is sent.
        pool: Where the trials run; as many worker processes as there are cores and trials, if not
            given. A pool inside its own `with` block keeps its workers for the next run.
        seed: Seeds each trial, together with the trial's name.
        retries: How many more times a trial is begun if its worker dies.
        timeout: Seconds for each trial that has no timeout of its own.
        progress: Whether to show the progress; None shows it on a terminal only.
        state_dicts: Whether the results bring the models' weights back.
        gpus_per_trial: How many CUDA devices each trial has to itself. Its model is moved to the
            first of them; `trial_devices` gives them all to the task.
        file: Where each result is saved as it arrives. A run with the same file, evaluator and seed
            takes up from there: it gives the results that are saved, and runs the trials that have
            none, or one with an error.
        key: Signs the file, and is asked for when it is opened again.
        trusted: Open what is pickled in an unsigned file (values, weights): it can do anything.

    Raises:
        TrialError: Two trials have the same name, or an argument is of no use; when the first
            result is asked for, also that the file is of another run, or the CUDA devices are few.
    """
    given = _checked(trials, pool, retries, timeout, gpus_per_trial)
    named = dict(zip(_names(given), given, strict=True))
    if pool is None:
        pool = LocalPool(workers=max(1, min(_cores(), len(given))))
    seconds = None if timeout is None else float(timeout)
    plan = Plan(evaluator, named, seed, seconds, bool(state_dicts))
    saving = None if file is None else Saving(file, key, trusted)
    cancelled: set[str] = set()
    terms = Terms(retries, gpus_per_trial, cancelled)
    return Results(_run(plan, pool, terms, progress, saving), tuple(named), cancelled)


def _run(
    plan: Plan,
    pool: Pool,
    terms: Terms,
    progress: bool | None,  # noqa: FBT001 - as in `run_trials`
    saving: Saving | None,
) -> Generator[TrialResult, None, None]:
    """Yield the results that are saved, then those of the trials that are left, and save them."""
    with ExitStack() as stack:
        saved = None if saving is None else SavedResults(saving, plan)
        if saved is not None:
            stack.callback(saved.close)
            yield from saved.finished.values()
        left = plan.without(saved.finished) if saved is not None else plan
        if left.trials:
            # Closed explicitly: the workers of an abandoned run end before its file is let go.
            run = stack.enter_context(closing(_run_all(left, pool, terms, progress)))
            for result in run:
                yield result if saved is None else saved.add(result)


def _run_all(
    plan: Plan,
    pool: Pool,
    terms: Terms,
    progress: bool | None,  # noqa: FBT001 - as in `run_trials`
) -> Generator[TrialResult, None, None]:
    """Open what a run needs, yield the results, and close it all, also if abandoned on the way."""
    leases = leases_for(pool, terms.gpus_per_trial)
    key = SigningKey.generate("pool")
    with ExitStack() as stack:
        board = stack.enter_context(Scoreboard()) if pool.on_this_machine else None
        context = make_context(key, pool.threads, current_settings(), board)
        shown = stack.enter_context(showing(len(plan.trials), progress))
        shelf = stack.enter_context(Shelf())
        # The workers start while the evaluator is written.
        pool.start(Briefing(_HANDLER, context), expected=len(plan.trials))
        stack.callback(pool.stop)
        driver = Driver(plan.trials, Packer(plan, shelf, key), pool, key, terms=terms, leases=leases)
        for result in driver.results(shown.interval or _LONGEST_WAIT):
            if result is None:
                shown.tick(driver.running, driver.steps(board))
            else:
                shown.finished(result)
                yield result


def _checked(
    trials: Iterable[Trial], pool: object, retries: object, timeout: float | None, gpus: object
) -> list[Trial]:
    """The trials as a list; complains about everything at once."""
    given = list(trials)
    problems = [
        f"trials[{index}] is of type {type(trial).__name__}: write Trial(model=...)"
        for index, trial in enumerate(given)
        if not isinstance(trial, Trial)
    ]
    if pool is not None and not isinstance(pool, Pool):
        problems.append(f"pool is {pool!r}: give a Pool, for instance LocalPool(workers=2)")
    if not isinstance(retries, int) or retries < 0:
        problems.append(f"retries is {retries!r}: give 0 or more")
    if timeout is not None and not timeout > 0:
        problems.append(f"timeout is {timeout!r}: give seconds, more than 0")
    if not isinstance(gpus, int) or gpus < 0:
        problems.append(f"gpus_per_trial is {gpus!r}: give 0 or more")
    if problems:
        raise TrialError("run_trials: " + "; ".join(problems))
    return given


def _names(trials: Sequence[Trial]) -> list[str]:
    """The trials' own names, and `trial-0`, `trial-1`, ... where they have none."""
    given = [trial.name for trial in trials if trial.name is not None]
    twice = [name for name, times in Counter(given).items() if times > 1]
    if twice:
        raise TrialError(
            f"run_trials: several trials are called {', '.join(map(repr, twice))}. A name tells a "
            "result's trial and seeds it, so each has to be different; leave it out to get one"
        )
    taken = set(given)
    names = []
    for index, trial in enumerate(trials):
        name = trial.name or f"trial-{index}"
        while trial.name is None and name in taken:
            name += "'"
        taken.add(name)
        names.append(name)
    return names


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
