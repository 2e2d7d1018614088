"""Write-once files that every worker on this machine can open, and that nobody has to remove.

On Linux they have no name: they are memory, or unlinked files where memory is short, and are reached
through this process's open descriptor. Whatever way this process ends, the kernel frees them with it.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
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


class Shelf(Closing):
    """Keeps files for as long as it is open."""

    def __init__(self) -> None:
        self._files: dict[str, IO[bytes]] = {}
        self._finalizer = weakref.finalize(self, _clear, self._files)

    def put(self, nbytes: int, write: Write, *, sealed: bool = False) -> Volume:
        """Write a file of rebind, in memory where there is room, else on disk.

        Args:
            nbytes: How large it will be.
            write: Writes it to an empty file; maybe called a second time, with another one.
            sealed: Seal it where it is in memory. Nobody can change it then, so that the workers, who
                trust the writer, do not verify each of its bytes again.

        Raises:
            SaveError: It cannot be written.
        """
        file = _in_memory(nbytes, write, sealed=sealed) or _on_disk(write)
        path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        if not os.path.exists(path):  # noqa: PTH110 - a name of the system's, not of a file
            path = file.name
        volume = Volume(address(path), path)
        _close(self._files.pop(volume.digest, None))
        self._files[volume.digest] = file
        return volume

    def remove(self, volume: Volume) -> None:
        """Give a file's memory back, as soon as no worker has it mapped any more."""
        _close(self._files.pop(volume.digest, None))

    def close(self) -> None:
        """Remove all files."""
        self._finalizer()


def _in_memory(nbytes: int, write: Write, *, sealed: bool) -> IO[bytes] | None:
    left = memory_left()
    if left < _LEAST_MEMORY_LEFT or nbytes > left // 2:
        return None
    file = memory_file()
    if file is None:
        return None
    try:
        write(file)
        file.flush()
        if sealed:
            seal(file)
    except OSError:  # the disk tells where the cause is another one
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file


def _on_disk(write: Write) -> IO[bytes]:
    with saving_errors_told("A temporary file"):
        # The name tells whose file it is, where files have names.
        prefix = f"rebind-{os.getpid()}-"
        make = tempfile.TemporaryFile if Path("/proc/self/fd").exists() else tempfile.NamedTemporaryFile
        file: IO[bytes] = make(prefix=prefix)
        try:
            write(file)
            file.flush()
        except BaseException:
            file.close()
            raise
    return file


def _clear(files: dict[str, IO[bytes]]) -> None:
    while files:
        _close(files.popitem()[1])


def _close(file: IO[bytes] | None) -> None:
    if file is not None:
        with suppress(OSError):
            file.close()
