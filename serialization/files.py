"""Files on disk: written whole or not at all, and mapped as private memory."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import stat
import sys
from typing import IO, TYPE_CHECKING, Final

from ..evaluator_schema.errors import NotARebindFileError, SaveError, TooLargeError, TruncatedError
from .cures import GET_AGAIN
from .renaming import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Path = str | os.PathLike[str]

# From the system's headers; the `mmap` module has it only from Python 3.13 on.
_MAP_NORESERVE: Final = 0x4000 if sys.platform == "linux" else 0

_CURES: Final = {
    errno.ENOSPC: "The disk is full: free some space, or save to another one.",
    errno.EDQUOT: "Your quota is used up: free some space, or save to another disk.",
    errno.EFBIG: "The system allows no file that large: see `ulimit -f`.",
    errno.EACCES: "You may not write there: save to a folder of yours.",
    errno.EPERM: "You may not write there: save to a folder of yours.",
    errno.EROFS: "It is read-only there: save to another disk.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EIO: "The disk fails: save to another one.",
    errno.ENOENT: "The folder does not exist: make it before.",
    errno.EISDIR: "That is a folder: name a file in it.",
}


def write_atomically(path: Path, write: Callable[[IO[bytes]], None], *, durable: bool = True) -> None:
    """Write a file under a temporary name beside it, then give it its name.

    Whoever opens `path` meanwhile, or after a crash at any moment, finds the old file or the new
    one, whole. The file is readable by its owner only.

    Args:
        path: The file. A symbolic link stays one, and the file it points to is replaced.
        write: Writes the content to the open file, which has no buffer: one call may not write all.
        durable: Whether to wait until the disk has it, so that it survives a loss of power. Without
            that, the file may be incomplete after one, which is told when it is opened.

    Raises:
        SaveError: It could not be written. What was at `path` is untouched.
    """
    target = os.path.realpath(path)
    with saving_errors_told(os.fspath(path)):
        with _temporary_beside(target) as (file, name):
            write(file)
            if durable:
                os.fsync(file.fileno())
                os.replace(name, target)  # noqa: PTH105 - paths are strings here
            else:
                replace(name, target)
        if durable:
            _sync_folder(os.path.dirname(target))  # noqa: PTH120 - paths are strings here


def write_whole(piece: bytes | memoryview, file: IO[bytes]) -> None:
    """Write to a file that may have no buffer, of which one call may take a part only."""
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


@contextlib.contextmanager
def saving_errors_told(name: str) -> Iterator[None]:
    """Tell what the system says while a file is written, and what to do.

    Args:
        name: What to call the file.

    Raises:
        SaveError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        cure = _CURES.get(error.errno or 0, "Save to another place.")
        raise SaveError(f"{name} could not be written: {error.strerror or error}. {cure}") from error


def map_privately(descriptor: int) -> mmap.mmap:
    """Map a whole open file, copy on write: it can be written to, and the file never changes.

    Raises:
        NotARebindFileError: It is no regular file.
        TruncatedError: It is empty.
        TooLargeError: The system does not map that much.
    """
    # The system would set as much memory aside as the file is large, or refuse a file larger than its
    # memory, although hardly any of it is ever written to.
    flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
    return _mapped(descriptor, flags, mmap.PROT_READ | mmap.PROT_WRITE)


def map_for_reading(descriptor: int) -> mmap.mmap:
    """Map a whole open file that is only looked at.

    Raises:
        NotARebindFileError: It is no regular file.
        TruncatedError: It is empty.
        TooLargeError: The system does not map that much.
    """
    return _mapped(descriptor, mmap.MAP_SHARED, mmap.PROT_READ)


def _mapped(descriptor: int, flags: int, protection: int) -> mmap.mmap:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise NotARebindFileError(
            "This is not a regular file, so it is not a rebind file. Name the file itself; of a pipe, read "
            "the bytes and open those."
        )
    if not status.st_size:
        raise TruncatedError(f"The file is empty. {GET_AGAIN}")
    try:
        return mmap.mmap(descriptor, status.st_size, flags=flags, prot=protection)
    except (OSError, OverflowError) as error:
        raise TooLargeError(
            f"The system does not map the {status.st_size:,} bytes of the file: {error}. Open it on a "
            "machine with more memory, or see `ulimit -v` and vm.overcommit_memory."
        ) from error


def open_for_mapping(path: Path) -> int:
    """A descriptor of a file that is about to be mapped. A pipe does not make this wait."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


@contextlib.contextmanager
def _temporary_beside(target: str) -> Iterator[tuple[IO[bytes], str]]:
    folder, base = os.path.split(target)
    name = os.path.join(folder, f".{base[:64]}.{secrets.token_hex(8)}.tmp")  # noqa: PTH118 - paths are strings here
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            yield file, name
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108 - paths are strings here
        raise


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
