"""Takes a pool through the trials of one run: each trial in, exactly one result out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from ..serialization import SigningKey, unpack
from . import faults
from .answers import Answer, Status
from .execute import RESULT
from .pools import Fate
from .results import TrialResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .packing import Packer
    from .pools import Job, Outcome, Pool


@dataclass(frozen=True, slots=True)
class _Attempt:
    name: str
    job: Job
    number: int = 1


class Driver:
    """Accounts for every trial of a run: each one gives exactly one result.

    Args:
        names: The trials.
        packer: Makes their jobs.
        pool: Runs them. It has been started, and is stopped by the caller.
        key: The results are signed with it.
        retries: How many more times a trial is begun if its worker dies. Only then: a trial that
            raises or takes too long would do so again.
    """

    def __init__(
        self, names: Iterable[str], packer: Packer, pool: Pool, key: SigningKey, retries: int
    ) -> None:
        self._waiting = deque(names)
        self._packer = packer
        self._pool = pool
        self._key = key
        self._retries = retries
        self._attempts: dict[int, _Attempt] = {}
        self._ids = count()

    @property
    def running(self) -> int:
        """How many trials are with a worker."""
        return min(len(self._attempts), self._pool.slots)

    def results(self, interval: float | None) -> Iterator[TrialResult | None]:
        """Yield each result as it comes, and None after each `interval` seconds without one."""
        while self._waiting or self._attempts:
            yield from self._fill()
            outcome = self._pool.next_outcome(interval)
            yield None if outcome is None else self._settle(outcome)

    def _fill(self) -> Iterator[TrialResult]:
        """Submit one more trial than there are slots: no worker waits while one is packed."""
        while self._waiting and len(self._attempts) <= self._pool.slots:
            name = self._waiting.popleft()
            try:
                job = self._packer.job(next(self._ids), name)
            except Exception as error:  # noqa: BLE001 - pickling runs code of the user's
                self._packer.release(name)
                yield TrialResult(name=name, error=faults.not_sent(name, error), attempts=0)
            else:
                self._submit(_Attempt(name, job))

    def _submit(self, attempt: _Attempt) -> None:
        self._attempts[attempt.job.id] = attempt
        self._pool.submit(attempt.job)

    def _settle(self, outcome: Outcome) -> TrialResult | None:
        attempt = self._attempts.pop(outcome.job_id)
        if outcome.fate is Fate.DIED and attempt.number <= self._retries:
            again = replace(attempt.job, id=next(self._ids))
            self._submit(_Attempt(attempt.name, again, attempt.number + 1))
            return None
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
        answer = Answer.decode(outcome.answer)
        blank = replace(blank, score=answer.score, seconds=answer.seconds)
        if answer.status is not Status.DONE:
            return replace(blank, error=faults.of_answer(name, answer))
        try:
            return replace(blank, **self._unpacked(answer))
        except Exception as error:  # noqa: BLE001 - unpickling runs code of the user's
            return replace(blank, error=faults.not_read(name, error))

    def _unpacked(self, answer: Answer) -> dict[str, Any]:
        body = memoryview(answer.body)
        # What came through a channel is writable and nobody else's: tensors may live in it.
        result: dict[str, Any] = unpack(body, kind=RESULT, key=self._key, in_place=not body.readonly)
        return result
