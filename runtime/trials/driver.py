"""Takes a pool through the trials of one run: each trial in, exactly one result out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

from ...evaluator_schema.errors import SerializationError
from ...serialization import SigningKey
from ..pools import Fate
from . import faults
from .answers import Answer, Status
from .results import TrialResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..pools import Job, Outcome, Pool
    from .leases import Leases
    from .packing import Packer
    from .scoreboard import Scoreboard


@dataclass(frozen=True, slots=True)
class Terms:
    """How the trials of a run are treated; see `run_trials`.

    Attributes:
        retries: How many more times a trial is begun if its worker dies. Only then: a trial that
            raises or takes too long would do so again.
        gpus_per_trial: How many CUDA devices each has to itself.
        cancelled: Names of the trials that are no longer wanted; may grow at any time.
    """

    retries: int = 1
    gpus_per_trial: int = 0
    cancelled: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Attempt:
    name: str
    job: Job
    devices: tuple[int, ...] = ()
    number: int = 1


class Driver:
    """Accounts for every trial of a run: each one gives exactly one result.

    Args:
        names: The trials.
        packer: Makes their jobs.
        pool: Runs them. It has been started, and is stopped by the caller.
        key: The results are signed with it.
        terms: How they are treated.
        leases: Gives them their CUDA devices.
    """

    def __init__(
        self,
        names: Iterable[str],
        packer: Packer,
        pool: Pool,
        key: SigningKey,
        *,
        terms: Terms,
        leases: Leases,
    ) -> None:
        self._waiting = deque(names)
        self._packer = packer
        self._pool = pool
        self._key = key
        self._terms = terms
        self._leases = leases
        self._attempts: dict[int, _Attempt] = {}
        self._unwanted: set[str] = set()
        self._ids = count()

    @property
    def running(self) -> int:
        """How many trials are with a worker."""
        return min(len(self._attempts), self._pool.slots)

    def steps(self, board: Scoreboard | None) -> dict[str, str]:
        """How far each running trial is, by name, as far as it tells."""
        if board is None:
            return {}
        told = {attempt.name: board.read(attempt.job.id) for attempt in self._attempts.values()}
        return {name: steps for name, steps in told.items() if steps}

    def results(self, interval: float | None) -> Iterator[TrialResult | None]:
        """Yield each result as it comes, and None after each `interval` seconds without one."""
        while self._waiting or self._attempts:
            yield from self._cancel()
            yield from self._fill()
            if self._attempts:
                outcome = self._pool.next_outcome(interval)
                yield None if outcome is None else self._settle(outcome)

    def _cancel(self) -> Iterator[TrialResult]:
        """Drop the trials that are no longer wanted; those that run are killed, and reported by the pool."""
        if not self._terms.cancelled:
            return
        unwanted = set(self._terms.cancelled)
        self._terms.cancelled.difference_update(unwanted)
        self._unwanted |= unwanted
        for attempt in list(self._attempts.values()):
            if attempt.name in unwanted:
                self._pool.cancel(attempt.job.id)
        for name in [name for name in self._waiting if name in unwanted]:
            self._waiting.remove(name)
            self._packer.release(name)
            yield TrialResult(name=name, error=faults.cancelled(name), attempts=0)

    def _fill(self) -> Iterator[TrialResult]:
        """Submit one more trial than there are slots: no worker waits while one is packed."""
        while self._waiting and len(self._attempts) <= self._pool.slots:
            devices = self._leases.take(self._terms.gpus_per_trial)
            if devices is None:
                break
            name = self._waiting.popleft()
            try:
                job = self._packer.job(next(self._ids), name, devices)
            except Exception as error:  # noqa: BLE001 - pickling runs code of the user's
                self._packer.release(name)
                self._leases.give(devices)
                yield TrialResult(name=name, error=faults.not_sent(name, error), attempts=0)
            else:
                self._submit(_Attempt(name, job, devices))

    def _submit(self, attempt: _Attempt) -> None:
        self._attempts[attempt.job.id] = attempt
        self._pool.submit(attempt.job)

    def _settle(self, outcome: Outcome) -> TrialResult | None:
        attempt = self._attempts.pop(outcome.job_id)
        if outcome.fate is Fate.DIED and attempt.name in self._unwanted | self._terms.cancelled:
            # It died just before the pool was told to end it, and is not begun again.
            outcome = replace(outcome, fate=Fate.CANCELLED)
        if outcome.fate is Fate.DIED and attempt.number <= self._terms.retries:
            again = replace(attempt.job, id=next(self._ids))
            self._submit(replace(attempt, job=again, number=attempt.number + 1))
            return None
        self._leases.give(attempt.devices)
        self._packer.release(attempt.name)
        return self._result(attempt, outcome)

    def _result(self, attempt: _Attempt, outcome: Outcome) -> TrialResult:
        name = attempt.name
        blank = TrialResult(
            name=name,
            seconds=outcome.seconds,
            process_id=outcome.process_id,
            attempts=attempt.number,
        )
        if outcome.fate is not Fate.ANSWERED:
            return replace(blank, error=faults.of_outcome(name, outcome, attempt.number))
        try:
            answer = Answer.decode(outcome.answer, self._key)
        except SerializationError as error:
            return replace(blank, error=faults.damaged(name, error))
        if answer.trial != name and answer.status is not Status.UNOPENED:
            return replace(blank, error=faults.of_another(name, answer))
        blank = replace(blank, score=answer.score, seconds=answer.seconds)
        if answer.status is not Status.DONE:
            return replace(blank, error=faults.of_answer(name, answer))
        try:
            return replace(blank, **answer.result(self._key))
        except Exception as error:  # noqa: BLE001 - unpickling runs code of the user's
            return replace(blank, error=faults.not_read(name, error))
