"""`SerialPool`: one job after the other, in this process."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING

from .pool import Fate, Outcome, Pool

if TYPE_CHECKING:
    from .pool import Briefing, Handler, Job


class SerialPool(Pool):
    """Runs each job in this process, when its outcome is asked for.

    It gives the same results as any other pool, bit for bit, where a debugger can follow. What
    kills a worker elsewhere kills this process, and nobody can stop a job that hangs: one that
    takes longer than its timeout is reported as timed out once it returns.

    Args:
        threads: How many threads torch may use.
    """

    slots = 1

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._handler: Handler | None = None
        self._queue: deque[Job] = deque()
        self._cancelled: deque[Outcome] = deque()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._queue.append(job)

    def cancel(self, job_id: int) -> None:
        """Take a job out of the queue."""
        for job in [job for job in self._queue if job.id == job_id]:
            self._queue.remove(job)
            self._cancelled.append(Outcome(job_id, Fate.CANCELLED))

    def next_outcome(self, wait: float | None = None) -> Outcome | None:  # noqa: ARG002 - as its caller calls it
        """Run the next job, however long it takes."""
        if self._cancelled:
            return self._cancelled.popleft()
        if not self._queue or self._handler is None:
            return None
        job = self._queue.popleft()
        began = time.perf_counter()
        fate, answer, detail, trace = Fate.ANSWERED, b"", "", ""
        try:
            answer = self._handler(job.payload, job.files)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as a worker does
            fate = Fate.RAISED
            detail = traceback.format_exception_only(error)[-1].strip()
            trace = "".join(traceback.format_exception(error))
        seconds = time.perf_counter() - began
        if job.timeout is not None and seconds > job.timeout:
            fate, answer, trace = Fate.TIMED_OUT, b"", ""
            detail = f"not done after {job.timeout:g} s"
        return Outcome(job.id, fate, answer, detail, trace, seconds, os.getpid())

    def close(self) -> None:
        """Forget the handler and all that it holds."""
        self._drop()
        self._handler = None

    def _begin(self, briefing: Briefing, expected: int) -> None:  # noqa: ARG002 - as its caller calls it
        self._handler = briefing.open()

    def _drop(self) -> None:
        self._queue.clear()
        self._cancelled.clear()

    def __repr__(self) -> str:
        return f"SerialPool(threads={self.threads})"
