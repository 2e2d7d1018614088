"""Write-once files that every worker on this machine can open, and that nobody has to remove.

On Linux they have no name: they are memory, or unlinked files where memory is short, and are reached
through this process's open descriptor. Whatever way this process ends, the kernel frees them with it.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from ...serialization.files import saving_errors_told
from ...serialization.seals import memory_file, seal
from ..pools.addresses import address
from .closing import Closing
from .memory_left import memory_left

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Write = Callable[[IO[bytes]], object]

# The trials need memory as well: a file takes half of what is left at most, and none where little is
# left to begin with.
_LEAST_MEMORY_LEFT = 256 << 20


@dataclass(frozen=True, slots=True)
class Volume:
    """A file on the shelf.

    Attributes:
        digest: Its `address`, which is its name for the workers.
        path: Where this machine's processes open it.
    """

    digest: str
    path: str

    @property
    def files(self) -> Mapping[str, str]:
        """The volume as a job refers to it."""
        return {self.digest: self.path}


@dataclass(slots=True)
class _Kept:
    volume: Volume
    file: IO[bytes]
    uses: int = 1


class Shelf(Closing):
    """Keeps files for as long as it is open."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._finalizer = weakref.finalize(self, _clear, self._kept)

    def put(self, nbytes: int, write: Write, *, sealed: bool = False) -> Volume:
        """Write a file of rebind, in memory where there is room, else on disk.

        Args:
            nbytes: How large it will be.
            write: Writes it to an empty file; maybe called a second time, with another one.
            sealed: Where it is in memory, seal it, so that nobody can change it any more, and workers who
                trust the writer need not verify each of its bytes.

        Returns:
            The volume; that of a file with the same content where there is one. Each `put` keeps it until
            a `remove` of its own.

        Raises:
            SaveError: It cannot be written.
        """
        file, path = _in_memory(nbytes, write, sealed=sealed) or _on_disk(write)
        digest = address(path)
        kept = self._kept.get(digest)
        if kept is None:
            kept = self._kept[digest] = _Kept(Volume(digest, path), file)
        else:
            file.close()
            kept.uses += 1
        return kept.volume

    def remove(self, volume: Volume) -> None:
        """Give a file's memory back, as soon as no worker has it mapped any more."""
        kept = self._kept.get(volume.digest)
        if kept is not None:
            kept.uses -= 1
            if not kept.uses:
                del self._kept[volume.digest]
                _close(kept.file)

    def close(self) -> None:
        """Remove all files."""
        self._finalizer()


def _in_memory(nbytes: int, write: Write, *, sealed: bool) -> tuple[IO[bytes], str] | None:
    left = memory_left()
    if left < _LEAST_MEMORY_LEFT or nbytes > left // 2:
        return None
    file = memory_file()
    if file is None:
        return None
    with suppress(OSError), ExitStack() as stack:  # the disk tells where the cause is another one
        stack.callback(_close, file)
        if (path := _path(file)) is not None:
            write(file)
            file.flush()
            if sealed:
                seal(file)
            stack.pop_all()
            return file, path
    return None


def _on_disk(write: Write) -> tuple[IO[bytes], str]:
    with saving_errors_told("A temporary file"):
        file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the shelf
        path = _path(file)
        if path is None:
            file.close()
            # The name tells whose file it is, in case that somebody finds it.
            file = tempfile.NamedTemporaryFile(prefix=f"rebind-{os.getpid()}-")  # noqa: SIM115 - likewise
            path = file.name
        with ExitStack() as stack:
            stack.callback(_close, file)
            write(file)
            file.flush()
            stack.pop_all()
    return file, path


def _path(file: IO[bytes]) -> str | None:
    """Where other processes open a file that has no name; None where the system has no such path."""
    path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
    try:
        # Of another namespace's processes, one may have the same number as this one.
        found = os.stat(path)  # noqa: PTH116 - a name of the system's, not of a file
        return path if os.path.samestat(found, os.fstat(file.fileno())) else None
    except OSError:
        return None


def _clear(all_kept: dict[str, _Kept]) -> None:
    while all_kept:
        _close(all_kept.popitem()[1].file)


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):
        file.close()
