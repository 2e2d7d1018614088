"""Long works advance side by side, a little each in turn.

Where works take turns as a whole, what the machine does in the second of the one is not what it does in the
second of the other. A difference of one percent is seen only where they share each moment, and the core:
others on the machine may slow down either of two cores by some percent for seconds.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from .turns import gc_paused

Pause = Callable[[], None]
PausingWork = Callable[[Pause], object]


class _Lane(threading.Thread):
    """One work, which goes on only while it is its turn."""

    def __init__(self, work: PausingWork) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._may_go, self._has_paused = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._is_abandoned = False
        self.is_done = False
        self.stretches: list[float] = []
        self._began = 0.0

    def advance(self) -> None:
        """Let it go on until it pauses or ends."""
        self._may_go.release()
        self._has_paused.acquire()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Let it end where it pauses, if another one has failed."""
        self._is_abandoned = True
        self._may_go.release()

    def run(self) -> None:
        self._may_go.acquire()
        self._began = time.thread_time()
        try:
            self._work(self._pause)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        self.stretches.append(time.thread_time() - self._began)
        self.is_done = True
        self._has_paused.release()

    def _pause(self) -> None:
        self.stretches.append(time.thread_time() - self._began)
        self._has_paused.release()
        self._may_go.acquire()
        if self._is_abandoned:
            raise SystemExit
        self._began = time.thread_time()


@contextmanager
def _on_equal_terms() -> Iterator[None]:
    """Let threads that begin in the block run on one core, and take their memory from one heap.

    glibc would give each thread a heap of its own, and they give pages back to the system at different times:
    that made up to 4 % of a training, by the same code. From here on, this process has one heap.
    """
    limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if limit is not None:
        limit(_M_ARENA_MAX, 1)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


_M_ARENA_MAX = -8  # of malloc.h


def _advance(running: list[_Lane]) -> None:
    """Let them advance until all have ended; who was the last in a turn is the first in the next."""
    for lane in running:
        lane.start()
    while running:
        for lane in running:
            lane.advance()
        running = [lane for lane in reversed(running) if not lane.is_done]


def side_by_side(
    works: Mapping[str, PausingWork], rounds: int, *, warm_up: int = 1
) -> dict[str, list[tuple[float, ...]]]:
    """Let works advance in turns in each round, and give the processor's seconds of each stretch.

    Each is done in a thread of its own, one of which runs at a time, all on the same core, and only its own
    time counts. A stretch is what lies between two pauses; the first one begins with the work, and the last
    one ends with it.

    Args:
        works: By name. Each calls the function that it gets after every few milliseconds, all equally often.
        rounds: How many count.
        warm_up: How many come before and do not count.
    """
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in works}
    for turn in range(warm_up + rounds):
        lanes = {name: _Lane(work) for name, work in works.items()}
        gc.collect()
        try:
            with gc_paused(), _on_equal_terms():
                _advance(list(lanes.values())[:: -1 if turn % 2 else 1])
        finally:
            for lane in lanes.values():
                lane.abandon()
        if turn >= warm_up:
            for name, lane in lanes.items():
                found[name].append(tuple(lane.stretches))
    return found
