"""A file that only grows: records, each of which vouches for itself and for all before it.

::

    magic | record | record | ...        record: length, check of the length, seal, payload

The seal of a record covers the seal of the one before. So a record that was changed, removed or
moved is told from one that was torn when its writer ended in the midst of it: only the last can be.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import struct
from typing import TYPE_CHECKING

from blake3 import blake3

from ...evaluator_schema.errors import CorruptedError, NotARebindFileError, TrialError, WrongKeyError
from ...serialization.files import write_whole
from .closing import Closing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from ...serialization import SigningKey

_MAGIC = b"rebind journal 1\n"
_HEAD = struct.Struct("!QI32s")
_LENGTH_CHECK = b"length"


class Journal(Closing):
    """An open journal, held by this process alone.

    Args:
        path: The file; it is made where there is none.
        key: Seals the records; without one they are checked against accidents only.

    Raises:
        TrialError: Another process has it open.
        NotARebindFileError: The file is something else.
        OSError: It cannot be opened.
    """

    def __init__(self, path: str | PathLike[str], key: SigningKey | None = None) -> None:
        self.path: str = os.fspath(path)
        self._key = key
        self._last = b""
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115, PTH123 - closed by `close`
        try:
            self._claim()
            self._begin()
        except BaseException:
            self._file.close()
            raise

    def read(self) -> Iterator[bytes]:
        """Yield every record, and cut off the end of one that was never finished.

        Raises:
            CorruptedError: A record was changed, removed or moved.
            WrongKeyError: It was not sealed with this key.
        """
        self._last = b""
        self._file.seek(len(_MAGIC))
        number = 0
        while (record := self._next(number)) is not None:
            yield record
            number += 1
        self._file.seek(0, os.SEEK_END)

    def append(self, payload: bytes) -> None:
        """Add a record; it is on the disk when this returns."""
        seal = self._seal(payload)
        write_whole(_HEAD.pack(len(payload), _check(len(payload)), seal) + payload, self._file)
        os.fsync(self._file.fileno())
        self._last = seal

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def _claim(self) -> None:
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrialError(
                f"{self.path} is in use by another run: wait for its end, or give this run a file of its own"
            ) from error

    def _begin(self) -> None:
        self._file.seek(0)
        found = self._file.read(len(_MAGIC))
        if found == _MAGIC:
            return
        if not _MAGIC.startswith(found):
            raise NotARebindFileError(
                f"{self.path} is not a file of results, and is left as it is. Give the path of a new file"
            )
        self._file.truncate(0)
        self._file.write(_MAGIC)

    def _next(self, number: int) -> bytes | None:
        place = self._file.tell()
        head = self._read(_HEAD.size)
        if len(head) < _HEAD.size:
            self._file.truncate(place)
            return None
        length, check, seal = _HEAD.unpack(head)
        if check != _check(length):
            raise self._changed(number)
        payload = self._read(length)
        if len(payload) < length:
            self._file.truncate(place)
            return None
        if not hmac.compare_digest(seal, self._seal(payload)):
            if number == 0:
                raise WrongKeyError(
                    f"{self.path} was written with another key, or without one, or was changed. Give the "
                    "key that it was written with"
                )
            raise self._changed(number)
        self._last = seal
        return payload

    def _read(self, count: int) -> bytes:
        parts = []
        while count and (part := self._file.read(count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _changed(self, number: int) -> CorruptedError:
        return CorruptedError(
            f"{self.path}: record {number} is not as it was written. Restore the file, or begin a new one"
        )

    def _seal(self, payload: bytes) -> bytes:
        data = self._last + payload
        if self._key is None:
            return blake3(data).digest()
        return bytes.fromhex(self._key.sign(b"journal" + data))


def _check(length: int) -> int:
    return int.from_bytes(blake3(_LENGTH_CHECK + length.to_bytes(8, "big")).digest(4), "big")
