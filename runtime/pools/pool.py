"""What a pool is: it takes jobs made of bytes, and gives back one outcome for each.

A pool knows nothing of evaluators, models or trials. Retries, seeds and errors are settled once,
above all pools; so a new kind of pool is one file that subclasses `Pool`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from types import TracebackType

BytesLike: TypeAlias = bytes | bytearray | memoryview

Handler: TypeAlias = Callable[[BytesLike, Mapping[str, str]], bytes]
"""Takes a job's payload and its files, returns the answer."""


class Fate(Enum):
    """How a job ended.

    Attributes:
        ANSWERED: The handler returned.
        RAISED: The handler raised.
        DIED: The worker's process ended first.
        TIMED_OUT: The worker was killed when the job's time was over.
        CANCELLED: `Pool.cancel` was called.
    """

    ANSWERED = "answered"
    RAISED = "raised"
    DIED = "died"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Briefing:
    """What each worker is told before its first job of a run.

    Attributes:
        handler: `module:name` of a callable; called once per worker with `context`, it returns the
            `Handler` for the run's jobs. It travels by name, so it has to be importable.
        context: Bytes for that callable. They hold secrets, and cross private channels only.
    """

    handler: str
    context: bytes = field(default=b"", repr=False)

    def open(self) -> Handler:
        """Import the handler's maker and call it with the context."""
        module, _, name = self.handler.partition(":")
        handler: Handler = getattr(import_module(module), name)(self.context)
        return handler


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Attributes:
        id: Tells this job from every other one in the run; a retry has an id of its own.
        payload: Handed to the handler as it is.
        files: `address` -> path of the write-once files of rebind that the payload refers to. A pool whose
            workers are on another machine copies them there, and hands on the paths there.
        timeout: Seconds from the moment that a worker begins; then the worker is killed.
    """

    id: int
    payload: BytesLike = field(repr=False)
    files: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended.

    Attributes:
        job_id: The `Job.id`.
        fate: What happened.
        answer: What the handler returned, where the fate is `ANSWERED`.
        detail: One line for people about any other fate.
        trace: The traceback that the worker left, or an empty string.
        seconds: From the moment that a worker began to the end; where it did not live to tell, as far as
            the pool has noticed.
        process_id: The worker's, or None where no worker got as far as to begin.
    """

    job_id: int
    fate: Fate
    answer: BytesLike = field(default=b"", repr=False)
    detail: str = ""
    trace: str = field(default="", repr=False)
    seconds: float = 0.0
    process_id: int | None = None


class Pool(ABC):
    """Runs jobs, a few at a time.

    A run is `start`, any number of `submit` and `next_outcome`, then `stop`; one run at a time.
    `close` lets the workers go. Used as a context manager, a pool keeps its workers warm from one
    run to the next, until the block is left.

    Attributes:
        slots: How many jobs run at the same time.
        threads: How many threads each job may use for its arithmetic.
        on_this_machine: Whether the workers share this machine's processes and devices.
    """

    slots: int
    threads: int
    on_this_machine: bool = True
    _running: bool = False
    _kept: bool = False

    def start(self, briefing: Briefing, expected: int = 1) -> None:
        """Begin a run.

        Args:
            briefing: What the workers are told.
            expected: How many jobs will come at least; so many workers may start at once.

        Raises:
            TrialError: This pool is in the middle of another run.
        """
        if self._running:
            # Here, as a worker that only moves bytes should not wait for torch to be imported.
            from ...evaluator_schema.errors import TrialError

            raise TrialError(
                f"{self!r} is busy with another run: finish or close that one's results first, "
                "or use a second pool"
            )
        self._running = True
        self._begin(briefing, expected)

    def stop(self) -> None:
        """End the run. Jobs without an outcome are dropped, and killed where they are running."""
        if self._running:
            self._running = False
            if self._kept:
                self._drop()
            else:
                self.close()

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Take a job. Never waits; more jobs than `slots` queue up.

        Which of those begins first is the pool's to say.

        Args:
            job: The job, with an id that no other one of the run has.
        """

    @abstractmethod
    def cancel(self, job_id: int) -> None:
        """End a job early, killing its worker where it runs; its outcome is `CANCELLED`.

        Nothing happens where the job has ended, or cannot be stopped.

        Args:
            job_id: The `Job.id`.
        """

    @abstractmethod
    def next_outcome(self, wait: float | None = None) -> Outcome | None:
        """Wait for any submitted job to end.

        Args:
            wait: At most so many seconds; None waits for as long as it takes.

        Returns:
            The outcome, or None where none came in time or no job is left.

        Raises:
            WorkerDiedError: No worker can be started at all.
        """

    @abstractmethod
    def close(self) -> None:
        """Let all workers go and free everything. Safe to call again; a later `start` reopens."""

    @abstractmethod
    def _begin(self, briefing: Briefing, expected: int) -> None:
        """Make ready for the first job of a run."""

    @abstractmethod
    def _drop(self) -> None:
        """Forget the jobs of the run that ends, and keep the workers that are idle."""

    def __enter__(self) -> Self:
        self._kept = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kept = False
        self._running = False
        self.close()
