"""Processes that are killed at random moments, as often as results come."""

from __future__ import annotations

import os
import random
import signal
import threading


class Chaos:
    """Kills one of some processes now and then: a random delay after some of the results.

    So a run moves on however slowly workers start; what is killed may be at work, idle or starting.

    Attributes:
        killed: How many were.
    """

    def __init__(self, processes, seed, share=1 / 16, longest=0.1):
        self._processes, self._random = processes, random.Random(seed)
        self._share, self._longest = share, longest
        self._timers = []
        self.killed = 0

    def saw_a_result(self):
        if self._random.random() < self._share:
            self._timers.append(threading.Timer(self._random.uniform(0, self._longest), self._kill))
            self._timers[-1].start()

    def _kill(self):
        try:
            os.kill(self._random.choice(sorted(self._processes())), signal.SIGKILL)
            self.killed += 1
        except (IndexError, ProcessLookupError):  # none is there, or it has just ended
            return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for timer in self._timers:
            timer.join()
