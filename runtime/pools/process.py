"""One worker process as its parent sees it: started, spoken to, killed, buried."""

from __future__ import annotations

import json
import multiprocessing.spawn
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .ahead import Tokens
from .frames import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping

# A command instead of multiprocessing's own start: `__main__` is not imported again, so that
# notebooks and scripts on standard input work.
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); "
    f"from {__package__}.worker import main; main(*map(int, sys.argv[1:]))"
)
_LONGEST_BURIAL = 5.0  # seconds; a killed process is gone at once, unless stuck in the kernel
_LAST_BREATH = 1.0  # seconds from the closing of its channel to the end of a process
_LONGEST_REPORT = 1 << 16
_GLANCE = 0.01  # seconds between looks, where the system gives no sentinel


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker inherits: taken once per pool, so that all its workers are alike."""

    path: str
    folder: str
    environment: Mapping[str, str]

    @classmethod
    def here(cls, threads: int, extra: Mapping[str, str]) -> Surroundings:
        """Those of this process, with the thread counts set before any library reads them."""
        folder = os.getcwd()  # noqa: PTH109 - a string is what is passed on
        path = [entry or folder for entry in sys.path if isinstance(entry, str)]
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
        # Threads that spin while they wait take the cores that the other workers need.
        environment = {**os.environ, **counts, "OMP_WAIT_POLICY": "PASSIVE", **extra}
        return cls(json.dumps(path), folder, environment)


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended.

    Attributes:
        detail: For people.
        trace: The Python traceback of a crash in native code.
        killed: Whether a signal ended it.
    """

    detail: str
    trace: str
    killed: bool


class WorkerProcess:
    """A process that runs `worker.main`, and this end of its private channel.

    Args:
        surroundings: What it inherits.

    Raises:
        OSError: The system gives no process.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        with ExitStack() as passed_on, ExitStack() as kept:
            ours, theirs = socket.socketpair()
            self.channel: Channel = Channel(ours)
            kept.callback(self.channel.close)
            passed_on.callback(theirs.close)
            # One each: whom the kernel tells of a pipe's end is a property of the pipe's end, not of
            # the process that holds it.
            their_lifeline, lifeline = os.pipe()
            kept.callback(os.close, lifeline)
            passed_on.callback(os.close, their_lifeline)
            self._crash_report = kept.enter_context(tempfile.TemporaryFile())
            self.tokens: Tokens = Tokens()
            kept.callback(self.tokens.close)
            descriptors = (theirs.fileno(), their_lifeline, self._crash_report.fileno(), self.tokens.reader)
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [
                    multiprocessing.spawn.get_executable(),
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                    "-c",
                    _COMMAND,
                    *map(str, descriptors),
                    surroundings.path,
                ],
                stdin=subprocess.DEVNULL,
                cwd=surroundings.folder,
                env=surroundings.environment,
                pass_fds=descriptors,
                process_group=0,  # out of reach of Ctrl-C, and killed with all that it starts
            )
            self.pid: int = self._process.pid
            kept.callback(self._end)
            # Tells of the end even where a process that the worker forked holds its socket open.
            self.sentinel: int | None = None
            if hasattr(os, "pidfd_open"):
                self.sentinel = os.pidfd_open(self.pid)
                kept.callback(os.close, self.sentinel)
            self._kept = kept.pop_all()

    @property
    def ended(self) -> bool:
        """Whether the process is no more. It stays unreaped, so that its group can be killed."""
        return self._status() is not None

    def kill(self) -> None:
        """Kill the process and those that it started."""
        if self._process.returncode is None:  # else the number may be another process by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Wait for the end without reaping; tells whether it came in time."""
        until = time.monotonic() + seconds
        while not self.ended and (rest := until - time.monotonic()) > 0:
            if self.sentinel is None:
                time.sleep(min(rest, _GLANCE))
            else:
                select.select([self.sentinel], [], [], rest)
        return self.ended

    def autopsy(self) -> Death:
        """Tell how it ended."""
        self.wait(_LAST_BREATH)
        trace = os.pread(self._crash_report.fileno(), _LONGEST_REPORT, 0)
        status = self._status()
        killed = status is not None and status.si_code != os.CLD_EXITED
        return Death(_describe(status), trace.decode(errors="replace"), killed)

    def bury(self) -> None:
        """Kill what is left of it, and free everything."""
        self._kept.close()
        self.sentinel = None

    def _end(self) -> None:
        self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LONGEST_BURIAL)

    def _status(self) -> os.waitid_result | None:
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # reaped by somebody else
            return _REAPED


_REAPED = os.waitid_result((0, 0, 0, 0, os.CLD_EXITED))


def _describe(status: os.waitid_result | None) -> str:
    if status is None:
        return "closed its channel"
    if status is _REAPED:
        return "ended, and its status was taken by somebody else"
    if status.si_code == os.CLD_EXITED:
        return f"exited with status {status.si_status}"
    name = signal.Signals(status.si_status).name
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
