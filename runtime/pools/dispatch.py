"""The logic of `LocalPool`: events in, actions out. No process, no socket, no clock.

Workers are numbered; a number is never used again, so that a late event about a worker that is
gone is told from one about its successor. A worker's life::

    starting --ready--> idle --Send--> busy --answered--> idle
        |                 |              |
        +------ended------+----ended-----+--expired--> (Kill, forgotten)

A busy worker may have one job ahead, which it begins by itself once it has answered; see `ahead`. Until its
answer is heard here, only `TakeBack` finds out whether it has. So no worker is killed before that.

A worker passes over a job that was taken back when it comes to read it. Until then it gets no other job
ahead, whose token it could take for that one's: not before it has answered a job that was sent later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

from .pool import Fate, Job, Outcome

if TYPE_CHECKING:
    from collections.abc import Collection

    from .pool import BytesLike

_LONGEST_AHEAD = 1 << 16  # bytes of a job that a busy worker's socket takes, so that nothing waits for it


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
class SendAhead:
    """Send this busy worker a job that it may begin when it has answered, and give it the token."""

    worker: int
    job: Job


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Take back what this worker has not begun, and tell it with `taken_back`."""

    worker: int


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


Action: TypeAlias = Start | Brief | Send | SendAhead | TakeBack | Kill | Rest | Report


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
    ahead: Job | None = None
    has_begun_ahead: bool = False  # as far as is known
    taken_back_during: Job | None = None  # what it had last when a job was taken back from it

    def take(self, job: Job, now: float) -> None:
        """Have this job from now on."""
        self.state, self.job, self.since, self.answering = _State.BUSY, job, now, False
        self.deadline = None if job.timeout is None else now + job.timeout


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
        self._unwanted: set[int] = set()  # cancelled jobs, until it is known who has begun what
        self._next_worker = 0
        self._failed_starts = 0
        self.broken: str | None = None

    @property
    def pending(self) -> int:
        """How many jobs have no outcome yet."""
        given = [job for w in self._workers.values() for job in (w.job, w.ahead) if job is not None]
        return len(self._queue) + len(given)

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
        worker.taken_back_during = None
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
        seconds: float | None = None,
        fate: Fate = Fate.ANSWERED,
        answer: BytesLike = b"",
        detail: str = "",
        trace: str = "",
    ) -> list[Action]:
        """A worker has ended its job by itself, after so many seconds, if it has told."""
        worker = self._workers.get(number)
        if worker is None or worker.job is None or worker.job.id != job_id:
            return []
        report = _report(
            worker, worker.job, fate, now, answer=answer, detail=detail, trace=trace, seconds=seconds
        )
        self._unwanted.discard(job_id)
        if worker.job is not worker.taken_back_during:
            worker.taken_back_during = None
        following, worker.ahead, worker.has_begun_ahead = worker.ahead, None, False
        if following is None:
            worker.state, worker.job, worker.deadline, worker.answering = _State.IDLE, None, None, False
        else:
            worker.take(following, now)
            if following.id in self._unwanted:
                return [report, *self._end(number, Fate.CANCELLED, now)]
        return [report, *self._assign(now)]

    def taken_back(self, number: int, jobs: Collection[int], now: float) -> list[Action]:
        """These jobs have not been begun by a worker, and will not be; any other one of its has been."""
        worker = self._workers.get(number)
        if worker is None or worker.job is None:
            return []
        actions: list[Action] = []
        if jobs:
            worker.taken_back_during = worker.job
        if worker.ahead is not None and worker.ahead.id in jobs:
            actions += self._requeue(worker.ahead)
            worker.ahead = None
        worker.has_begun_ahead = worker.ahead is not None
        if worker.job.id in self._unwanted:
            return actions + self._end(number, Fate.CANCELLED, now)
        if worker.job.id in jobs:  # it was ahead a moment ago
            worker.take(worker.job, now)
            actions.append(Send(number, worker.job))
        # Whoever has asked has a worker for what has come back, or is about to.
        return actions + self._assign(now, ahead=False)

    def ended(
        self,
        number: int,
        detail: str,
        now: float,
        *,
        unbegun: Collection[int] = (),
        trace: str = "",
        killed: bool = False,
    ) -> list[Action]:
        """A worker's process is no more.

        Args:
            number: The worker.
            detail: For people.
            now: The time.
            unbegun: The jobs that it had not begun; they are as if they had never been sent.
            trace: The Python traceback of a crash.
            killed: Whether a signal ended it.
        """
        worker = self._workers.pop(number, None)
        if worker is None:
            return []
        actions: list[Action] = []
        for job in (worker.ahead, worker.job):
            if job is not None and job.id in unbegun:
                actions += self._requeue(job)
            elif job is not None:
                actions.append(_report(worker, job, Fate.DIED, now, detail=detail, trace=trace))
                self._unwanted.discard(job.id)
        if worker.job is None and worker.state is _State.STARTING:
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
                actions += self._end(number, Fate.TIMED_OUT, now, detail=detail)
        return actions

    def cancelled(self, job_id: int, now: float) -> list[Action]:
        """Somebody no longer wants this job."""
        for job in [job for job in self._queue if job.id == job_id]:
            self._queue.remove(job)
            return [Report(Outcome(job_id, Fate.CANCELLED))]
        for number, worker in list(self._workers.items()):
            if worker.job is not None and worker.job.id == job_id:
                self._unwanted.add(job_id)
                return self._end(number, Fate.CANCELLED, now)
            if worker.ahead is not None and worker.ahead.id == job_id:
                self._unwanted.add(job_id)
                return [] if worker.has_begun_ahead else [TakeBack(number)]
        return []

    def dropped(self) -> list[Action]:
        """The run is over: nobody waits for what is left of it."""
        self._queue.clear()
        self._unwanted.clear()
        busy = [number for number, w in self._workers.items() if w.state is _State.BUSY]
        for number in busy:
            del self._workers[number]
        return [*map(Kill, busy), *map(Rest, self._workers)]

    def _assign(self, now: float, *, ahead: bool = True) -> list[Action]:
        """Give jobs to idle workers, hire where jobs are left, and see to it that busy ones need not wait."""
        actions: list[Action] = []
        for number, worker in self._workers.items():
            if not self._queue:
                break
            if worker.state is _State.IDLE:
                job = self._queue.popleft()
                worker.take(job, now)
                actions.append(Send(number, job))
        actions += self._hire(len(self._queue))
        if not ahead:
            return actions
        return actions + (self._send_ahead(now) if self._queue else []) + self._reclaim()

    def _send_ahead(self, now: float) -> list[Action]:
        """Where all workers are busy, give the next jobs to those that have been busy for longest."""
        if any(worker.state is not _State.BUSY for worker in self._workers.values()):
            return []
        actions: list[Action] = []
        for number, worker in sorted(self._workers.items(), key=lambda item: item[1].since):
            overdue = worker.deadline is not None and worker.deadline <= now
            if not self._queue or len(self._queue[0].payload) > _LONGEST_AHEAD:
                break
            if worker.ahead is None and worker.taken_back_during is None and not overdue:
                worker.ahead = self._queue.popleft()
                actions.append(SendAhead(number, worker.ahead))
        return actions

    def _requeue(self, job: Job) -> list[Action]:
        """Put a job that no worker has begun back to the head of the queue, if it is still wanted."""
        if job.id in self._unwanted:
            self._unwanted.discard(job.id)
            return [Report(Outcome(job.id, Fate.CANCELLED))]
        self._queue.appendleft(job)
        return []

    def _reclaim(self) -> list[Action]:
        """Ask for the jobs that wait behind others, as many as other workers are, or could be, free for."""
        holding = [n for n, w in self._workers.items() if w.ahead is not None and not w.has_begun_ahead]
        busy = sum(w.state is _State.BUSY for w in self._workers.values())
        free = self._slots - busy - len(self._queue)
        return [TakeBack(number) for number in holding[: max(free, 0)]]

    def _end(self, number: int, fate: Fate, now: float, *, detail: str = "") -> list[Action]:
        """Kill a worker for its job's sake, once it is known not to have gone on to the next job.

        Until then it asks, or waits for the answer. To be called again after that, if the reason still holds.
        """
        worker = self._workers[number]
        if worker.ahead is not None:
            # Where it has gone on, its answer is about to be heard.
            return [] if worker.has_begun_ahead else [TakeBack(number)]
        if worker.job is None:
            raise AssertionError("a worker without a job is not killed")
        del self._workers[number]
        self._unwanted.discard(worker.job.id)
        return [Kill(number), _report(worker, worker.job, fate, now, detail=detail), *self._assign(now)]

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


def _report(
    worker: _Worker,
    job: Job,
    fate: Fate,
    now: float,
    *,
    answer: BytesLike = b"",
    detail: str = "",
    trace: str = "",
    seconds: float | None = None,
) -> Report:
    return Report(
        Outcome(
            job.id,
            fate,
            answer=answer,
            detail=detail,
            trace=trace,
            seconds=now - worker.since if seconds is None else seconds,
            process_id=worker.process_id,
        )
    )
