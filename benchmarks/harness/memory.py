"""The most memory of its own that a work needs, measured in a fresh process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .turns import Work

_LOOK_EVERY = 0.001


def own_memory(process: int | str = "self") -> int:
    """Give the anonymous memory of a process in bytes: what is its own, not the page cache."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def peak_memory(ready: Callable[..., Work], *args: Any, preload: list[str]) -> int:
    """Give how many bytes more than before a work needs at most.

    Args:
        ready: A function of a module. Called in the process, it gives the work.
        args: What it is called with.
        preload: Modules that are imported before: their memory does not count.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    ours, theirs = context.Pipe()
    process = context.Process(target=_alone, args=(ready, args, theirs))
    process.start()
    theirs.close()
    before: int = ours.recv()
    peak = before
    ours.send("go")
    while not ours.poll(_LOOK_EVERY):
        peak = max(peak, own_memory(process.pid or "self"))
    peak = max(peak, ours.recv())
    ours.send("done")
    process.join()
    return peak - before


def _alone(ready: Callable[..., Work], args: tuple[Any, ...], pipe: Connection) -> None:
    work = ready(*args)
    pipe.send(own_memory())
    pipe.recv()
    result = work()
    pipe.send(own_memory())
    pipe.recv()
    del result
