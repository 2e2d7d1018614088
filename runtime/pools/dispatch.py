"""The logic of `LocalPool`: events in, actions out. No process, no socket, no clock.

Workers are numbered; a number is never used again, so that a late event about a worker that is
gone is told from one about its successor. A worker's life::

    starting --ready--> idle --Send--> busy --answered--> idle
        |                 |              |
        +------ended------+----ended-----+--expired--> (Kill, forgotten)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

from .pool import Fate, Job, Outcome

if TYPE_CHECKING:
    from .pool import BytesLike


@dataclass(frozen=True, slots=True)
class Start:
    """Start this worker and brief it."""

    worker: int


@dataclass(frozen=True, slots=True)
class Brief:
    """Tell this idle worker about a new run."""

    worker: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send this worker a job."""

    worker: int
    job: Job


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill this worker."""

    worker: int


@dataclass(frozen=True, slots=True)
class Rest:
    """Tell this worker that the run is over: it lets go of what it has opened for it."""

    worker: int


@dataclass(frozen=True, slots=True)
class Report:
    """Hand this outcome to whoever waits for it."""

    outcome: Outcome


Action: TypeAlias = Start | Brief | Send | Kill | Rest | Report


class _State(Enum):
    STARTING = auto()
    IDLE = auto()
    BUSY = auto()


@dataclass(slots=True)
class _Worker:
    state: _State = _State.STARTING
    process_id: int | None = None
    job: Job | None = None
    since: float = 0.0
    deadline: float | None = None
    answering: bool = False


_KILLED, _FAILED = 1, 16  # what a start in vain takes of the patience, in sixteenths


class Dispatcher:
    """Decides which worker does what.

    Args:
        slots: The most workers at a time.
        patience: So many workers in a row may fail to get ready; then the pool is `broken`. Being
            killed from outside meanwhile counts for little, as the next one may well get through.
    """

    def __init__(self, slots: int, patience: int = 8) -> None:
        self._slots = slots
        self._patience = patience * _FAILED
        self._workers: dict[int, _Worker] = {}
        self._queue: deque[Job] = deque()
        self._next_worker = 0
        self._failed_starts = 0
        self.broken: str | None = None

    @property
    def pending(self) -> int:
        """How many jobs have no outcome yet."""
        return len(self._queue) + sum(w.job is not None for w in self._workers.values())

    @property
    def idle(self) -> list[int]:
        """The workers that wait for a job."""
        return [number for number, w in self._workers.items() if w.state is _State.IDLE]

    @property
    def deadline(self) -> float | None:
        """The moment when `expired` should be called next."""
        deadlines = [w.deadline for w in self._workers.values() if w.deadline is not None]
        return min(deadlines, default=None)

    def begin(self, expected: int) -> list[Action]:
        """Begin a run of at least so many jobs."""
        self.broken = None
        self._failed_starts = 0
        actions: list[Action] = []
        for number, worker in self._workers.items():
            worker.state = _State.STARTING
            actions.append(Brief(number))
        return actions + self._hire(expected)

    def submitted(self, job: Job, now: float) -> list[Action]:
        """A job has come in."""
        self._queue.append(job)
        return self._assign(now)

    def ready(self, number: int, process_id: int, now: float) -> list[Action]:
        """A worker is ready for its first job of the run."""
        worker = self._workers.get(number)
        if worker is None or worker.state is not _State.STARTING:
            return []
        worker.state = _State.IDLE
        worker.process_id = process_id
        self._failed_starts = 0
        return self._assign(now)

    def answering(self, number: int, now: float) -> list[Action]:
        """The first piece of an answer has arrived: the job was done in time.

        Its delivery gets the same time again; a parent that comes late to read a large answer must
        not take its own delay for the worker's.
        """
        worker = self._workers.get(number)
        if worker is not None and worker.job is not None and not worker.answering:
            worker.answering = True
            if worker.job.timeout is not None:
                worker.deadline = now + worker.job.timeout
        return []

    def answered(
        self,
        number: int,
        job_id: int,
        now: float,
        *,
        fate: Fate = Fate.ANSWERED,
        answer: BytesLike = b"",
        detail: str = "",
        trace: str = "",
    ) -> list[Action]:
        """A worker has ended its job by itself."""
        worker = self._workers.get(number)
        if worker is None or worker.job is None or worker.job.id != job_id:
            return []
        report = self._report(worker, fate, now, answer=answer, detail=detail, trace=trace)
        worker.state, worker.job, worker.deadline = _State.IDLE, None, None
        worker.answering = False
        return [report, *self._assign(now)]

    def ended(
        self, number: int, detail: str, now: float, *, trace: str = "", killed: bool = False
    ) -> list[Action]:
        """A worker's process is no more; `killed` tells that a signal ended it."""
        worker = self._workers.pop(number, None)
        if worker is None:
            return []
        actions: list[Action] = []
        if worker.job is not None:
            actions.append(self._report(worker, Fate.DIED, now, detail=detail, trace=trace))
        elif worker.state is _State.STARTING:
            self._failed_starts += _KILLED if killed else _FAILED
            if self._failed_starts >= self._patience:
                return actions + self.failed(number, f"{detail}\n{trace}".strip())
        return actions + self._assign(now)

    def failed(self, number: int, detail: str) -> list[Action]:
        """A worker says that it cannot work, and so would any other."""
        self._workers.pop(number, None)
        self.broken = detail
        return []

    def expired(self, now: float) -> list[Action]:
        """Time has passed: kill the workers that are over their job's time."""
        actions: list[Action] = []
        for number, worker in list(self._workers.items()):
            if worker.job is not None and worker.deadline is not None and worker.deadline <= now:
                detail = f"not done after {worker.job.timeout:g} s"
                actions += [Kill(number), self._report(worker, Fate.TIMED_OUT, now, detail=detail)]
                del self._workers[number]
        return actions + self._assign(now) if actions else []

    def cancelled(self, job_id: int, now: float) -> list[Action]:
        """Somebody no longer wants this job."""
        for job in [job for job in self._queue if job.id == job_id]:
            self._queue.remove(job)
            return [Report(Outcome(job_id, Fate.CANCELLED))]
        for number, worker in list(self._workers.items()):
            if worker.job is not None and worker.job.id == job_id:
                del self._workers[number]
                return [Kill(number), self._report(worker, Fate.CANCELLED, now), *self._assign(now)]
        return []

    def dropped(self) -> list[Action]:
        """The run is over: nobody waits for what is left of it."""
        self._queue.clear()
        busy = [number for number, w in self._workers.items() if w.state is _State.BUSY]
        for number in busy:
            del self._workers[number]
        return [*map(Kill, busy), *map(Rest, self._workers)]

    def _assign(self, now: float) -> list[Action]:
        """Give jobs to idle workers, and hire where jobs are left."""
        actions: list[Action] = []
        for number, worker in self._workers.items():
            if not self._queue:
                break
            if worker.state is _State.IDLE:
                job = self._queue.popleft()
                worker.state, worker.job, worker.since = _State.BUSY, job, now
                worker.deadline = None if job.timeout is None else now + job.timeout
                actions.append(Send(number, job))
        return actions + self._hire(len(self._queue))

    def _hire(self, wanted: int) -> list[Action]:
        """Start workers until so many are about to be free, or all slots are taken."""
        actions: list[Action] = []
        coming = sum(w.state is not _State.BUSY for w in self._workers.values())
        while self.broken is None and coming < wanted and len(self._workers) < self._slots:
            self._workers[self._next_worker] = _Worker()
            actions.append(Start(self._next_worker))
            self._next_worker += 1
            coming += 1
        return actions

    @staticmethod
    def _report(
        worker: _Worker,
        fate: Fate,
        now: float,
        *,
        answer: BytesLike = b"",
        detail: str = "",
        trace: str = "",
    ) -> Report:
        if worker.job is None:
            raise AssertionError("a worker without a job has nothing to report")
        return Report(
            Outcome(
                worker.job.id,
                fate,
                answer=answer,
                detail=detail,
                trace=trace,
                seconds=now - worker.since,
                process_id=worker.process_id,
            )
        )
