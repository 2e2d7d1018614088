"""What this session of tests has started and made, and the wait for its end."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import uuid
from pathlib import Path

MARK = "REBIND_TEST_SESSION"
os.environ[MARK] = uuid.uuid4().hex


def marked_processes():
    """All processes that descend from this session, whoever their parent is by now."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                if mark in (folder / "environ").read_bytes():
                    found.add(int(folder.name))
            except OSError:
                continue
    return found


def wait_for(condition, seconds=30):
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.005)


def wait_until_gone(processes, seconds=10.0):
    """Wait for the end of processes that are no children of this one; returns those left."""
    left = set(processes)
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        left &= marked_processes()
        if not left:
            break
        pause.wait(0.02)
    return left


def left_files():
    """The folders of rebind in shared places that this process has made, or one that is no more.

    Other tests may run beside this one, and have theirs.
    """
    places = {Path("/dev/shm"), Path(tempfile.gettempdir())}
    found = {path for place in places if place.exists() for path in place.glob("rebind-*-*")}
    makers = {path: path.name.split("-")[1] for path in found}
    return {path for path, maker in makers.items() if maker.isdecimal() and _is_own_or_orphaned(int(maker))}


def _is_own_or_orphaned(maker):
    return maker == os.getpid() or not Path(f"/proc/{maker}").exists()
