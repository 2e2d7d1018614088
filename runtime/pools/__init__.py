"""Pools: where jobs run. One file per kind; `pool.py` says what each of them has to do."""

from __future__ import annotations

from .local import LocalPool
from .pool import Briefing, Fate, Job, Outcome, Pool
from .serial import SerialPool

__all__ = ["Briefing", "Fate", "Job", "LocalPool", "Outcome", "Pool", "SerialPool"]
