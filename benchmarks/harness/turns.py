"""Contestants take turns, so that whatever else the machine does happens to all of them alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

from .record import Comparison

Work = Callable[[], object]
Clock = Callable[[], float]
Timed = Callable[[], float]

# The clock is read once for so many calls that they take this long, in seconds.
_LONG_ENOUGH = 5e-3
# Nobody sits out before having been measured this often.
_FEWEST_ROUNDS = 2


@contextmanager
def gc_paused() -> Iterator[None]:
    """Collect no garbage in the block."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def timed(
    work: Work, *, clock: Clock = time.perf_counter, before: Work | None = None, pause_gc: bool = True
) -> Timed:
    """Give a function that does the work once, and tells the seconds.

    Args:
        work: What is timed. What it returns is given back to the memory after the clock has stopped.
        clock: `time.process_time` where only this process's own work counts.
        before: Done before each call, outside of the time.
        pause_gc: As timeit does. Where the collection of garbage is part of the cost, it is to go on.
    """

    def once() -> float:
        if before is not None:
            before()
        # The young garbage that others left; all of it only where it would be met in the time.
        gc.collect(1 if pause_gc else 2)
        with gc_paused() if pause_gc else nullcontext():
            began = clock()
            kept = work()
            seconds = clock() - began
        del kept
        return seconds

    return once


def repeated(work: Work) -> Timed:
    """Like `timed`, for works of microseconds: the mean of as many calls as the clock needs to be exact.

    The time is the processor's, which other programs hardly disturb.
    """
    work()
    began = time.process_time()
    work()
    number = max(1, math.ceil(_LONG_ENOUGH / max(time.process_time() - began, 1e-7)))

    def many() -> None:
        for _ in range(number):
            work()

    once = timed(many, clock=time.process_time)
    return lambda: once() / number


def take_turns(
    contestants: Mapping[str, Timed], rounds: int, *, warm_up: int = 1, patience: float = math.inf
) -> dict[str, tuple[float, ...]]:
    """Let each tell its seconds once in each round, and give them all.

    Each round begins with the next one, as what came before costs as well: caches, the disk's write-back.

    Args:
        contestants: By name.
        rounds: How many count.
        warm_up: How many come before and do not count.
        patience: Who has used this many seconds sits the other rounds out, but has two at least.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    used = dict.fromkeys(contestants, 0.0)
    for turn in range(warm_up + rounds):
        names = list(contestants)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if used[name] > patience and len(found[name]) >= min(rounds, _FEWEST_ROUNDS):
                continue
            seconds = contestants[name]()
            used[name] += seconds
            if turn >= warm_up:
                found[name].append(seconds)
    return {name: tuple(seconds) for name, seconds in found.items()}


def compare(
    family: str,
    contestants: Mapping[str, Timed],
    rounds: int,
    *,
    baseline: str,
    setting: str = "",
    size: float | None = None,
    warm_up: int = 1,
    patience: float = math.inf,
) -> Comparison:
    """Take turns, and give the comparison; see `take_turns` and `Comparison` for the arguments."""
    samples = take_turns(contestants, rounds, warm_up=warm_up, patience=patience)
    return Comparison(family=family, setting=setting, size=size, baseline=baseline, samples=samples)
