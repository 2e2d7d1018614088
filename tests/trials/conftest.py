"""Each test of the trials must leave no process, no thread, no descriptor and no file behind."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from pathlib import Path

import pytest
from trial_processes import left_files, marked_processes, wait_until_gone


def _descriptors():
    kinds = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        # Files of a run have no name any more, or one of their own. A checkout may be called anything.
        unlinked, own = target.endswith(" (deleted)"), Path(target).name.startswith("rebind-")
        if target.startswith(("socket:", "pipe:", "anon_inode:")) or unlinked or own:
            kinds[target.partition(":")[0]] += 1
    return kinds


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    gc.collect()
    before = marked_processes(), set(threading.enumerate()), _descriptors(), left_files()
    yield
    gc.collect()
    left = wait_until_gone(marked_processes() - before[0], seconds=2)
    assert not left, f"processes left: {left}"
    assert set(threading.enumerate()) <= before[1]
    assert not _descriptors() - before[2]
    assert not left_files() - before[3]
