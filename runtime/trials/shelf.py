"""Write-once files that every worker on this machine can open, and that nobody has to remove.

On Linux a file is unlinked as soon as it is written and reached through this process's open
descriptor of it: whatever way this process ends, the kernel frees the file with it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...evaluator_schema.errors import SaveError
from ..pools.addresses import address
from .closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MEMORY = Path("/dev/shm")  # noqa: S108 - the file goes into a private folder in it
# torch's data loaders and others need shared memory as well: a file takes half of what is free at
# most, and none where little is free to begin with.
_LEAST_FREE_MEMORY = 256 << 20


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
        self._descriptors: dict[str, int] = {}
        self._folders: dict[str, str] = {}
        self._finalizer = weakref.finalize(self, _clear, self._descriptors, self._folders)

    def put(self, write: Callable[[Path], object]) -> Volume:
        """Write a file of rebind, in memory where there is room, else on disk.

        Args:
            write: Called with the path of the file to make; maybe a second time, with another one.
        """
        folder = _write(write)
        try:
            path = folder / "file"
            digest = address(path)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._descriptors[digest] = descriptor
            shared = f"/proc/{os.getpid()}/fd/{descriptor}"
            if os.path.exists(shared):  # noqa: PTH110 - a name of the system's, not of a file
                return Volume(digest, shared)
            self._folders[digest] = str(folder)
            return Volume(digest, str(path))
        finally:
            if str(folder) not in self._folders.values():
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self, volume: Volume) -> None:
        """Give a file's memory back, as soon as no worker has it mapped any more."""
        _remove(volume.digest, self._descriptors, self._folders)

    def close(self) -> None:
        """Remove all files."""
        self._finalizer()


def _write(write: Callable[[Path], object]) -> Path:
    """Write the file into a new private folder, and return the folder."""
    free = _free(_MEMORY)
    # The name tells whose folder it is, in case that somebody finds it.
    prefix = f"rebind-{os.getpid()}-"
    if free >= _LEAST_FREE_MEMORY:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY))
        try:
            write(folder / "file")
            if (folder / "file").stat().st_size <= free // 2:
                return folder
        except (OSError, SaveError):
            pass  # it did not fit; the disk tells where the cause is another one
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        write(folder / "file")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
    except OSError:
        return 0


def _clear(descriptors: dict[str, int], folders: dict[str, str]) -> None:
    for digest in list(descriptors):
        _remove(digest, descriptors, folders)


def _remove(digest: str, descriptors: dict[str, int], folders: dict[str, str]) -> None:
    if (descriptor := descriptors.pop(digest, None)) is not None:
        with suppress(OSError):
            os.close(descriptor)
    if (folder := folders.pop(digest, None)) is not None:
        shutil.rmtree(folder, ignore_errors=True)
