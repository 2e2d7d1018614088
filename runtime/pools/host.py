"""What a worker of an engine such as Dask or Ray does: it hosts processes that do the jobs.

A job runs in a worker process of `LocalPool`, a child of the engine's worker. So whatever a job
does to its process costs that job only and is told as exactly as on one machine, a timeout and a
cancellation really kill, and the engine never sees an object of the user's: only bytes cross.

This module is imported by name in the engine's worker, which needs neither torch nor the user's
modules for it.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .addresses import address
from .local import LocalPool
from .pool import Briefing, Fate, Job, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .pool import BytesLike

_LENGTH = struct.Struct("!I")
_GLANCE = 0.1  # seconds between looks whether the job is still wanted
_IDLE = 60.0  # seconds without a job after which a pool may be taken for vanished

NEEDS, BROKEN = "needs", "broken"  # what else than a fate an answer can tell


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job and all that an engine's worker has to know for it.

    Attributes:
        pool: Tells one pool from every other.
        run: Tells one run of it from every other.
        briefing: What a process is told before its first job of the run.
        threads: How many threads each process may use.
        env: Variables of the environment to add or replace in a process.
        path: Where else a process looks for modules.
        job: The job; the paths of its files are those of the pool's machine.
    """

    pool: str
    run: str
    briefing: Briefing
    threads: int
    env: Mapping[str, str]
    path: Sequence[str]
    job: Job

    def encode(self) -> bytes:
        """The assignment as bytes."""
        told = {
            "pool": self.pool,
            "run": self.run,
            "handler": self.briefing.handler,
            "threads": self.threads,
            "env": dict(self.env),
            "path": list(self.path),
            "id": self.job.id,
            "files": dict(self.job.files),
            "timeout": self.job.timeout,
        }
        return _joined(told, self.briefing.context, self.job.payload)

    @classmethod
    def decode(cls, data: BytesLike) -> Assignment:
        """The assignment that `encode` turned into bytes."""
        told, context, payload = _split(data)
        job = Job(told["id"], payload, told["files"], told["timeout"])
        briefing = Briefing(told["handler"], bytes(context))
        own = (told["pool"], told["run"], briefing, told["threads"], told["env"], told["path"])
        return cls(*own, job)


def read_answer(data: BytesLike) -> tuple[str, dict[str, Any], Outcome | None]:
    """What a host answered: a word, what it told, and the outcome where the job has ended."""
    told, answer, _ = _split(data)
    word = told.pop("word")
    if word in (NEEDS, BROKEN):
        return word, told, None
    told["fate"] = Fate(word)
    return word, told, Outcome(**told, answer=answer)


def work(
    assignment: BytesLike,
    files: Mapping[str, BytesLike],
    wanted: Callable[[], bool] = lambda: True,
) -> bytes:
    """Do one job in a process of this host.

    Args:
        assignment: An `Assignment` as bytes.
        files: Contents of files that this machine did not have, by digest.
        wanted: Asked now and then; once it says no, the job is killed.
    """
    order = Assignment.decode(assignment)
    with _HOUSE.guest(order.pool) as guest:
        paths = guest.files.paths(order.job.files, files)
        missing = [digest for digest in order.job.files if digest not in paths]
        if missing:
            return _joined({"word": NEEDS, "digests": missing})
        return _done(guest, order, paths, wanted)


def _done(guest: _Guest, order: Assignment, paths: Mapping[str, str], wanted: Callable[[], bool]) -> bytes:
    from ...evaluator_schema.errors import WorkerDiedError

    process = guest.take(order)
    try:
        process.brief(order)
        outcome = process.do(order.job, paths, wanted)
    except WorkerDiedError as error:
        process.close()
        return _joined({"word": BROKEN, "detail": str(error)})
    except BaseException:
        process.close()
        raise
    guest.put_back(process)
    told = {
        "word": outcome.fate.value,
        "job_id": outcome.job_id,
        "detail": outcome.detail,
        "trace": outcome.trace,
        "seconds": outcome.seconds,
        "process_id": outcome.process_id,
    }
    return _joined(told, outcome.answer)


def release(pool: str) -> None:
    """End the processes of a pool as soon as they have no job, and forget its files."""
    _HOUSE.release(pool)


class _Process:
    """A worker process that stays from one run of its pool to the next."""

    def __init__(self, order: Assignment) -> None:
        self._pool = LocalPool(workers=1, threads=order.threads, env=order.env)
        self._pool.__enter__()  # keeps its process; left by `close`
        self._run = ""
        # A process inherits the path of this one.
        sys.path.extend(entry for entry in order.path if entry not in sys.path)

    def brief(self, order: Assignment) -> None:
        if self._run != order.run:
            self._pool.stop()
            self._pool.start(order.briefing)
            self._run = order.run

    def do(self, job: Job, paths: Mapping[str, str], wanted: Callable[[], bool]) -> Outcome:
        """Do a job; it is over when its process has answered, died, or was killed."""
        self._pool.submit(Job(job.id, job.payload, paths, job.timeout))
        while (outcome := self._pool.next_outcome(_GLANCE)) is None:
            if not wanted():
                self._pool.cancel(job.id)
        return outcome

    def close(self) -> None:
        self._pool.__exit__(None, None, None)


class _Guest:
    """What one pool has in this worker of the engine: processes that wait for a job, and files."""

    def __init__(self) -> None:
        self.files = _Files()
        self.busy = 0
        self.since = time.monotonic()
        self.leaving = False
        self._idle: list[_Process] = []
        self._lock = threading.Lock()

    def take(self, order: Assignment) -> _Process:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Process(order)

    def put_back(self, process: _Process) -> None:
        with self._lock:
            self._idle.append(process)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()
        self.files.close()


class _House:
    """The guests in this worker of the engine."""

    def __init__(self) -> None:
        self._guests: dict[str, _Guest] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    @contextmanager
    def guest(self, pool: str) -> Iterator[_Guest]:
        """The guest of this pool, who stays at least until the block is left."""
        with self._lock:
            guest = self._guests.setdefault(pool, _Guest())
            guest.busy += 1
        try:
            yield guest
        finally:
            with self._lock:
                guest.busy -= 1
                guest.since = time.monotonic()
                leaves = guest.leaving and not guest.busy
                if not leaves:
                    self._watch()
            if leaves:
                guest.close()

    def release(self, pool: str) -> None:
        with self._lock:
            guest = self._guests.pop(pool, None)
            if guest is None:
                return
            guest.leaving = True
            stays = guest.busy
            if not self._guests and self._timer is not None:
                self._timer.cancel()
                self._timer = None
        if not stays:
            guest.close()

    def _watch(self) -> None:
        """See to it that a guest goes whose pool has vanished without a word."""
        if self._timer is None and self._guests:
            self._timer = threading.Timer(_IDLE, self._look_round)
            self._timer.daemon = True
            self._timer.start()

    def _look_round(self) -> None:
        now = time.monotonic()
        with self._lock:
            self._timer = None
            late = [pool for pool, g in self._guests.items() if not g.busy and now - g.since > _IDLE / 2]
            self._watch()
        for pool in late:
            self.release(pool)


class _Files:
    """The files of jobs on this machine: those of the pool's own machine, else copies."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._shelf: Any = None
        self._lock = threading.Lock()

    def paths(self, wanted: Mapping[str, str], contents: Mapping[str, BytesLike]) -> dict[str, str]:
        """Where each file is here, as far as it is."""
        with self._lock:
            for digest, path in wanted.items():
                if digest in self._known and os.path.exists(self._known[digest]):  # noqa: PTH110 - a system's name
                    continue
                self._known.pop(digest, None)
                if digest in contents:
                    self._known[digest] = self._copy(contents[digest])
                elif _is_here(path, digest):
                    self._known[digest] = path
            return {digest: self._known[digest] for digest in wanted if digest in self._known}

    def close(self) -> None:
        """Forget all; what a process has mapped lives as long as the mapping."""
        with self._lock:
            self._known.clear()
            if self._shelf is not None:
                self._shelf.close()
                self._shelf = None

    def _copy(self, content: BytesLike) -> str:
        from ..trials.shelf import Shelf  # here, as it imports torch by way of its errors

        if self._shelf is None:
            self._shelf = Shelf()
        # Not sealed, as nobody has verified it yet: each worker process does.
        path: str = self._shelf.put(len(content), lambda file: file.write(content)).path
        return path


def _is_here(path: str, digest: str) -> bool:
    """Whether this machine has this very file: the same path may lead elsewhere on another one."""
    try:
        return address(path) == digest
    except OSError:
        return False


def _joined(told: Mapping[str, Any], first: BytesLike = b"", second: BytesLike = b"") -> bytes:
    header = json.dumps({**told, "_first": len(first)}).encode()
    return b"".join((_LENGTH.pack(len(header)), header, first, second))


def _split(data: BytesLike) -> tuple[dict[str, Any], memoryview, memoryview]:
    view = memoryview(data)
    (length,) = _LENGTH.unpack_from(view)
    body = _LENGTH.size + length
    told = json.loads(bytes(view[_LENGTH.size : body]))
    middle = body + told.pop("_first")
    return told, view[body:middle], view[middle:]


_HOUSE = _House()
