"""How much memory may still be taken here: what the machine has, and what a container lets it have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MACHINE = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
# Where each version of control groups keeps the limit, what is used, and how much of that are files'
# pages that would be given up: (folder, limit, usage, the line of memory.stat).
_VERSIONS = {
    "": (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    "memory": (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def memory_left() -> int:
    """So many bytes may be taken; 0 where the system does not tell."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", _read(_MACHINE), re.MULTILINE)
    if not found:
        return 0
    return max(0, min([int(found[1]) << 10, *_left_in_groups()]))


def _left_in_groups() -> Iterator[int]:
    """What each group that this process is in, and each above it, has left."""
    for line in _read(_OWN_GROUPS).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        for controller in set(controllers.split(",")) & _VERSIONS.keys():
            root, limit, usage, given_up = _VERSIONS[controller]
            # A container may not see its own group under this name, but as the root.
            group = root / own.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(root):
                    yield from _left(folder, limit, usage, given_up)


def _left(folder: Path, limit: str, usage: str, given_up: str) -> Iterator[int]:
    most, used = _read(folder / limit).strip(), _read(folder / usage).strip()
    if most.isdecimal() and used.isdecimal():
        files = re.search(rf"^{given_up} (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
        yield int(most) - int(used) + (int(files[1]) if files else 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
