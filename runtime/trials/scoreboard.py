"""A shared page on which workers mark how many steps their trials have made.

Marking is a write to memory: it costs a trial nothing, and no message can be lost or block. The
page has one line per trial that runs; the lines are used again, as few trials run at a time.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

from .closing import Closing

_LINE = struct.Struct("=qqq")  # slot, step, max_steps; aligned to words
_LINES = 512


class Scoreboard(Closing):
    """The page, as its reader has it; it ends with this process or when it is closed.

    Attributes:
        path: Where the processes of this machine open it; None where the system has no such path.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._file.truncate(_LINES * _LINE.size)
        self._page = mmap.mmap(self._file.fileno(), 0)
        path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        self.path: str | None = path if os.path.exists(path) else None  # noqa: PTH110 - not a file's own name

    def read(self, slot: int) -> str:
        """How far the trial with this slot is, in a few words; empty where it has not begun."""
        found, step, most = _LINE.unpack_from(self._page, slot % _LINES * _LINE.size)
        if found != slot + 1:
            return ""
        return f"step {step}" if most < 0 else f"step {step}/{most}"

    def close(self) -> None:
        """Free the page."""
        self._page.close()
        self._file.close()


class Marker:
    """The page, as a worker has it. Where it cannot be opened, marks are not kept.

    Args:
        path: The path of the `Scoreboard`.
    """

    def __init__(self, path: str) -> None:
        self._page: mmap.mmap | None = None
        try:
            with open(path, "r+b") as file:  # noqa: PTH123 - a name of the system's
                self._page = mmap.mmap(file.fileno(), _LINES * _LINE.size)
        except (OSError, ValueError):
            return

    def mark(self, slot: int, step: int, max_steps: int | None) -> None:
        """Note that a trial has made so many steps."""
        if self._page is not None:
            most = -1 if max_steps is None else max_steps
            _LINE.pack_into(self._page, slot % _LINES * _LINE.size, slot + 1, step, most)
