"""A worker's lifeline: a pipe whose other end only the parent holds.

The parent never writes to it. When the parent ends, however it ends, the kernel closes its end and
the worker is killed together with the processes that it started, also in the midst of a job.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import threading


def die_with_parent(lifeline: int) -> None:
    """Arrange for the end of this process and its process group when the pipe's other end closes.

    Args:
        lifeline: Descriptor of the pipe's reading end. No other process may share it, as the kernel
            keeps one addressee for it.
    """
    if sys.platform != "linux" or not _ask_kernel(lifeline):
        threading.Thread(target=_wait_for_end, args=(lifeline,), daemon=True).start()


def _ask_kernel(lifeline: int) -> bool:
    """Let the kernel send SIGKILL: it does so even while native code holds the GIL."""
    try:
        leader = os.getpgrp() == os.getpid()
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp() if leader else os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    except OSError:
        return False
    # The signal tells of a change only: the parent may have ended before it was asked for.
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):
        _die()
    return True


def _wait_for_end(lifeline: int) -> None:
    os.read(lifeline, 1)
    _die()


def _die() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
