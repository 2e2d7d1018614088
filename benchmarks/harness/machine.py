"""What this machine is, without its name."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from .peers import versions
from .record import Machine


def this_machine() -> Machine:
    """Look at it."""
    return Machine(
        processor=_after("/proc/cpuinfo", "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        load=round(os.getloadavg()[0], 1),
        system=platform.system(),
        python=platform.python_version(),
        libraries=versions(),
    )


def _after(file: str, word: str) -> str:
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        if line.startswith(word):
            return line.partition(":")[2].strip()
    return ""
