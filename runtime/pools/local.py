"""`LocalPool`: worker processes on this machine, each with a private channel of its own."""

from __future__ import annotations

import os
import selectors
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from .dispatch import Action, Brief, Dispatcher, Kill, Report, Rest, Send, SendAhead, Start, TakeBack
from .frames import Frame
from .pool import Fate, Outcome, Pool
from .process import Surroundings, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pool import Briefing, Job

_GRACE = 2.0  # seconds for an idle worker to end by itself
_GLANCE = 0.1  # seconds between looks at the workers, where the system gives no sentinels


class LocalPool(Pool):
    """Worker processes that share nothing, not even a queue.

    A worker that dies costs its own job only, and is replaced when there is work for it. A busy worker gets
    one more job ahead, if that is small, so that it need not wait for this process between two. Workers
    start when a run starts, and end with it, or with the `with` block of the pool. They also end
    when this process ends, however it ends.

    Args:
        workers: How many.
        threads: How many threads each may use for its arithmetic.
        env: Variables of the environment to add or replace in the workers.
    """

    def __init__(self, workers: int = 2, threads: int = 1, *, env: Mapping[str, str] | None = None) -> None:
        for name, value in (("workers", workers), ("threads", threads)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"LocalPool: {name} is {value!r}, and has to be 1 or more")
        self.slots = workers
        self.threads = threads
        self._env = dict(env or {})
        self._crew: _Crew | None = None

    def submit(self, job: Job) -> None:
        """Queue a job, or send it where a worker is idle."""
        self._opened().submit(job)

    def cancel(self, job_id: int) -> None:
        """Take a job out of the queue, or kill the worker that runs it."""
        self._opened().cancel(job_id)

    def next_outcome(self, wait: float | None = None) -> Outcome | None:
        """Wait for any job to end. While nobody waits, each worker begins at most one more job."""
        return self._opened().next_outcome(wait)

    @property
    def process_ids(self) -> frozenset[int]:
        """The process ids of the workers that there are at this moment."""
        return frozenset() if self._crew is None else self._crew.process_ids

    def close(self) -> None:
        """End all workers: those that are idle by themselves, the others by SIGKILL."""
        crew, self._crew = self._crew, None
        if crew is not None:
            self._finalizer.detach()
            crew.disband(_GRACE)

    def _begin(self, briefing: Briefing, expected: int) -> None:
        if self._crew is None:
            self._crew = _Crew(self.slots, Surroundings.here(self.threads, self._env))
            self._finalizer = weakref.finalize(self, self._crew.disband, 0.0)
        self._crew.begin(briefing, expected)

    def _drop(self) -> None:
        if self._crew is not None:
            self._crew.drop()

    def _opened(self) -> _Crew:
        if self._crew is None:
            raise _died(f"{self!r} is closed: call start() first")
        return self._crew

    def __repr__(self) -> str:
        return f"LocalPool(workers={self.slots}, threads={self.threads})"


def _frame(job: Job, *, ahead: bool) -> Frame:
    return Frame({"kind": "job", "id": job.id, "files": dict(job.files), "ahead": ahead}, job.payload)


def _died(message: str) -> Exception:
    # Here, as a worker that only moves bytes should not wait for torch to be imported.
    from ...evaluator_schema.errors import WorkerDiedError

    return WorkerDiedError(message)


class _Crew:
    """The processes of an open pool: carries out what the dispatcher decides."""

    def __init__(self, slots: int, surroundings: Surroundings) -> None:
        self._owner = os.getpid()
        self._surroundings = surroundings
        self._dispatcher = Dispatcher(slots)
        self._processes: dict[int, WorkerProcess] = {}
        self._outcomes: deque[Outcome] = deque()
        self._selector = selectors.DefaultSelector()
        self._briefing = Frame({})
        self._run = 0

    @property
    def process_ids(self) -> frozenset[int]:
        return frozenset(process.pid for process in list(self._processes.values()))

    def begin(self, briefing: Briefing, expected: int) -> None:
        """Brief all workers."""
        self._run += 1
        header = {"kind": "brief", "run": self._run, "handler": briefing.handler}
        self._briefing = Frame(header, briefing.context)
        self._carry_out(self._dispatcher.begin(expected))

    def submit(self, job: Job) -> None:
        self._carry_out(self._dispatcher.submitted(job, time.monotonic()))

    def cancel(self, job_id: int) -> None:
        self._carry_out(self._dispatcher.cancelled(job_id, time.monotonic()))

    def drop(self) -> None:
        self._outcomes.clear()
        self._carry_out(self._dispatcher.dropped())

    def next_outcome(self, wait: float | None) -> Outcome | None:
        until = None if wait is None else time.monotonic() + wait
        while not self._outcomes and self._dispatcher.pending:
            if self._dispatcher.broken is not None:
                raise _died(f"no worker can be started: {self._dispatcher.broken}")
            now = time.monotonic()
            if until is not None and until < now:
                break
            self._look(until, now)
        return self._outcomes.popleft() if self._outcomes else None

    def _look(self, until: float | None, now: float) -> None:
        """Wait for something to happen, and see to it."""
        limits = [limit for limit in (until, self._dispatcher.deadline) if limit is not None]
        wait = max(min(limits) - now, 0) if limits else None
        if not hasattr(os, "pidfd_open"):
            wait = _GLANCE if wait is None else min(wait, _GLANCE)
        stirred = {key.data for key, _ in self._selector.select(wait)}
        if not hasattr(os, "pidfd_open"):
            stirred |= {n for n, process in self._processes.items() if process.ended}
        for number in stirred:
            self._attend(number)
        # After the reading: an answer that is there is not late.
        self._carry_out(self._dispatcher.expired(time.monotonic()))

    def _attend(self, number: int) -> None:
        """Send to, and hear, one worker."""
        process = self._processes.get(number)
        if process is None:
            return
        gone = process.ended  # first: what it sent before its end is read below
        try:
            if not gone:
                process.channel.flush()
        except OSError:
            gone = True
        try:
            # What it hears may lead to its end.
            while number in self._processes and (frame := process.channel.receive()) is not None:
                self._hear(number, process, frame)
        except EOFError:
            gone = True
        if number not in self._processes:
            return
        if gone:
            death = process.autopsy()
            unbegun = process.tokens.take_back()
            self._bury(number)
            self._carry_out(
                self._dispatcher.ended(
                    number,
                    death.detail,
                    time.monotonic(),
                    unbegun=unbegun,
                    trace=death.trace,
                    killed=death.killed,
                )
            )
        else:
            if process.channel.receiving:
                self._dispatcher.answering(number, time.monotonic())
            self._watch(number)

    def _hear(self, number: int, process: WorkerProcess, frame: Frame) -> None:
        now, header = time.monotonic(), frame.header
        match header["kind"]:
            case "ready" if header["id"] == self._run:
                actions = self._dispatcher.ready(number, process.pid, now)
            case "broken" if header["id"] == self._run:
                actions = self._dispatcher.failed(number, header["trace"])
            case "answer":
                told = {"seconds": header["seconds"], "answer": frame.body}
                actions = self._dispatcher.answered(number, header["id"], now, **told)
            case "raised":
                told = {name: header[name] for name in ("seconds", "detail", "trace")}
                actions = self._dispatcher.answered(number, header["id"], now, fate=Fate.RAISED, **told)
            case _:
                return
        self._carry_out(actions)

    def _carry_out(self, actions: list[Action]) -> None:
        """Do what was decided; a failure is an event, and may lead to more actions."""
        todo = deque(actions)
        while todo:
            match todo.popleft():
                case Report(outcome):
                    self._outcomes.append(outcome)
                case Start(number):
                    todo.extend(self._start(number))
                case Brief(number) if number in self._processes:
                    self._tell(number, self._briefing)
                case Brief(number):  # a Ctrl-C came between the decision and the start
                    todo.extend(self._dispatcher.ended(number, "not started", time.monotonic(), killed=True))
                case Send(number, job):
                    self._tell(number, _frame(job, ahead=False))
                case SendAhead(number, job):
                    self._processes[number].tokens.give(job.id)
                    self._tell(number, _frame(job, ahead=True))
                case TakeBack(number):
                    unbegun = self._processes[number].tokens.take_back()
                    todo.extend(self._dispatcher.taken_back(number, unbegun, time.monotonic()))
                case Rest(number):
                    self._tell(number, Frame({"kind": "rest"}))
                case Kill(number):
                    self._bury(number)

    def _start(self, number: int) -> list[Action]:
        try:
            process = WorkerProcess(self._surroundings)
        except OSError as error:
            return self._dispatcher.ended(number, f"no process: {error}", time.monotonic())
        self._processes[number] = process
        self._selector.register(process.channel.sock, selectors.EVENT_READ, number)
        if process.sentinel is not None:
            self._selector.register(process.sentinel, selectors.EVENT_READ, number)
        self._tell(number, self._briefing)
        return []

    def _tell(self, number: int, frame: Frame) -> None:
        """Send without waiting; a worker that is gone is noticed at the next look."""
        process = self._processes.get(number)
        if process is None:
            return
        process.channel.send(frame)
        try:
            process.channel.flush()
        except OSError:
            return
        self._watch(number)

    def _watch(self, number: int) -> None:
        """Ask to be woken when the worker takes more, where there is more to send."""
        channel = self._processes[number].channel
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.sending else 0)
        if self._selector.get_key(channel.sock).events != events:
            self._selector.modify(channel.sock, events, number)

    def _bury(self, number: int) -> None:
        process = self._processes.pop(number, None)
        if process is None:
            return
        self._selector.unregister(process.channel.sock)
        if process.sentinel is not None:
            self._selector.unregister(process.sentinel)
        process.bury()

    def disband(self, grace: float) -> None:
        """End all processes and free everything; those that are idle get `grace` seconds."""
        if os.getpid() != self._owner:
            return  # a fork of the owner: the workers are not its own
        processes, self._processes = self._processes, {}
        idle = [processes[number] for number in self._dispatcher.idle if number in processes]
        for process in processes.values():
            if grace and process in idle:
                process.channel.close()  # it reads the end of file
            else:
                process.kill()
        try:
            until = time.monotonic() + grace
            for process in idle:
                process.wait(until - time.monotonic())
        finally:
            for process in processes.values():
                process.bury()
            self._selector.close()
