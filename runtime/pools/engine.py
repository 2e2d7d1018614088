"""What the pools over engines have in common: jobs out, bytes back, files by digest where they lack."""

from __future__ import annotations

import queue
import time
import uuid
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .host import BROKEN, NEEDS, Assignment, read_answer
from .pool import Fate, Outcome, Pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .pool import Briefing, BytesLike, Job


AGAIN = "again"
"""The word that a job has not begun, and is to be sent once more."""


class EnginePool(Pool):
    """A pool whose workers belong to an engine; `host` says what happens in them.

    An engine's own retries are off: whether a trial is begun again is decided in one place for all
    pools. A subclass sends assignments and files, and calls `_came` from any thread.

    Args:
        threads: How many threads each job may use for its arithmetic.
        env: Variables of the environment to add or replace in the processes that do the jobs.
        path: Where else these look for modules.
    """

    on_this_machine = False

    def __init__(self, threads: int, env: Mapping[str, str] | None, path: Sequence[str]) -> None:
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"{type(self).__name__}: threads is {threads!r}, and has to be 1 or more")
        self.threads = threads
        self._env = dict(env or {})
        self._path = list(path)
        self._name = ""
        self._run = ""
        self._briefing: Briefing | None = None
        self._jobs: dict[int, tuple[str, Job]] = {}
        self._sent_files: dict[str, Any] = {}
        self._recalled: set[int] = set()
        self._arrivals: queue.SimpleQueue[tuple[str, int, BytesLike | str]] = queue.SimpleQueue()

    def submit(self, job: Job) -> None:
        """Hand a job to the engine."""
        self._jobs[job.id] = (self._run, job)
        self._send(job, {})

    def next_outcome(self, wait: float | None = None) -> Outcome | None:
        """Wait for any job to end."""
        until = None if wait is None else time.monotonic() + wait
        while self._jobs:
            rest = None if until is None else max(until - time.monotonic(), 0)
            try:
                run, job_id, answer = self._arrivals.get(timeout=rest)
            except queue.Empty:
                return None
            if run == self._run and job_id in self._jobs:
                outcome = self._read(job_id, answer)
                if outcome is not None:
                    return outcome
        return None

    def cancel(self, job_id: int) -> None:
        """Kill a job where it runs, or take it back."""
        if job_id in self._jobs:
            # Before the engine can tell that it has lost the job, which it does from a thread of its own.
            self._arrivals.put((self._run, job_id, Fate.CANCELLED.value))
            self._recalled.add(job_id)
            self._recall(job_id)

    def _begin(self, briefing: Briefing, expected: int) -> None:
        self._name = self._name or uuid.uuid4().hex
        self._run = uuid.uuid4().hex
        self._briefing = briefing
        self._open(expected)

    def _drop(self) -> None:
        for job_id in list(self._jobs):
            self._recall(job_id)
        self._jobs.clear()
        self._sent_files.clear()
        self._recalled.clear()
        self._run = ""

    def close(self) -> None:
        """Let the pool's processes go, and the engine where it is the pool's own."""
        if self._name:
            self._drop()
            name, self._name = self._name, ""
            self._let_go(name)

    def _came(self, run: str, job_id: int, answer: BytesLike | str) -> None:
        """An answer has come from a host, or, as text, the word that there will be none."""
        self._arrivals.put((run, job_id, answer))

    def _read(self, job_id: int, answer: BytesLike | str) -> Outcome | None:
        _, job = self._jobs[job_id]
        if answer == AGAIN:
            self._send_again(job, {})
            return None
        if isinstance(answer, str):
            del self._jobs[job_id]
            self._recalled.discard(job_id)
            fate = Fate.CANCELLED if answer == Fate.CANCELLED.value else Fate.DIED
            return Outcome(job_id, fate, detail="" if fate is Fate.CANCELLED else answer)
        word, told, outcome = read_answer(answer)
        if word == NEEDS:
            self._send_again(job, self._files(job, told["digests"]))
            return None
        del self._jobs[job_id]
        if word == BROKEN:
            from ...evaluator_schema.errors import WorkerDiedError

            raise WorkerDiedError(told["detail"])
        return outcome

    def _send_again(self, job: Job, files: Mapping[str, Any]) -> None:
        if job.id not in self._recalled:  # else the word that it is cancelled is on its way
            self._send(job, files)

    def _files(self, job: Job, digests: Sequence[str]) -> dict[str, Any]:
        """Files that a worker lacks, each handed to the engine once, unless the engine loses it."""
        for digest in digests:
            if digest not in self._sent_files or not self._is_held(self._sent_files[digest]):
                self._sent_files[digest] = self._put(Path(job.files[digest]).read_bytes())
        return {digest: self._sent_files[digest] for digest in digests}

    def _assignment(self, job: Job) -> bytes:
        if self._briefing is None:
            raise AssertionError("a job was submitted before the run began")
        return Assignment(
            self._name, self._run, self._briefing, self.threads, self._env, self._path, job
        ).encode()

    @abstractmethod
    def _open(self, expected: int) -> None:
        """Make ready for a run of so many jobs at least."""

    @abstractmethod
    def _send(self, job: Job, files: Mapping[str, Any]) -> None:
        """Have a worker do the job, with files as `_put` returned them; never wait for it."""

    @abstractmethod
    def _recall(self, job_id: int) -> None:
        """Kill or take back a job."""

    @abstractmethod
    def _put(self, content: bytes) -> Any:
        """Hand a file's content to the engine, which takes it to the workers that ask for it."""

    def _is_held(self, reference: Any) -> bool:  # noqa: ARG002 - as its caller calls it
        """Whether the engine still has what `_put` handed to it."""
        return True

    @abstractmethod
    def _let_go(self, name: str) -> None:
        """Have all hosts release this pool, and end what is its own."""
