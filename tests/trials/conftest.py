"""Each test of the trials must leave no process, no thread, no descriptor and no file behind."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import uuid
from collections import Counter
from pathlib import Path

import pytest

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


def _descriptors():
    kinds = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:", "anon_inode:")) or "rebind" in target:
            kinds[target.partition(":")[0]] += 1
    return kinds


def _files():
    folders = {Path("/dev/shm"), Path(tempfile.gettempdir())}
    return {path for folder in folders if folder.exists() for path in folder.glob("rebind-*")}


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    gc.collect()
    before = marked_processes(), set(threading.enumerate()), _descriptors(), _files()
    yield
    gc.collect()
    left = wait_until_gone(marked_processes() - before[0], seconds=2)
    assert not left, f"processes left: {left}"
    assert set(threading.enumerate()) <= before[1]
    assert not _descriptors() - before[2]
    assert not _files() - before[3]
