"""A file about to be written: entries, and a manifest that gets their digests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from threading import Semaphore
from typing import IO, TYPE_CHECKING, Final, TypeAlias

from ..evaluator_schema.errors import NotSerializableError
from .digests import NO_DIGEST, THREADED_FROM_BYTES, digest
from .files import write_whole
from .format import padding
from .header import Slot, write_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .manifest import Manifest
    from .signing import SigningKey

    Slices: TypeAlias = Iterator[bytes | memoryview]

_ZEROS: Final = bytes(64)
_SLICE_BYTES: Final = 2 << 20
# Pieces below this are copied together, and written by one call.
_JOINED_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Entry:
    """Bytes to be written under a name: chunks, each followed by zeros to a multiple of 64.

    Attributes:
        name: The entry's name in the file.
        chunks: The memory; it is written from where it lies.
        dtype: What a safetensors reader shows the elements as.
    """

    name: str
    chunks: tuple[bytes | memoryview, ...]
    dtype: str = "U8"

    @property
    def bytes_in_file(self) -> int:
        """The size in the file, zeros included."""
        return sum(len(chunk) + padding(len(chunk)) for chunk in self.chunks)

    def slices(self) -> Slices:
        """What is written, in order, in pieces of bounded size."""
        for piece in self.pieces():
            if len(piece) <= _SLICE_BYTES:
                yield piece
                continue
            view = memoryview(piece)
            for start in range(0, len(view), _SLICE_BYTES):
                yield view[start : start + _SLICE_BYTES]

    def pieces(self) -> Slices:
        """What is written, in order."""
        for chunk in self.chunks:
            yield chunk
            if missing := padding(len(chunk)):
                yield _ZEROS[:missing]


class Draft:
    """A file about to be written: entries and a manifest that lacks only its digests."""

    def __init__(self, entries: Sequence[Entry], manifest: Manifest, key: SigningKey | None) -> None:
        self._entries = tuple(entries)
        self._key = key
        self._manifest = manifest.model_copy(
            update={
                "signed": key is not None,
                "key_id": key.id if key else None,
                "data_bytes": sum(entry.bytes_in_file for entry in entries),
                "digests": {entry.name: NO_DIGEST for entry in entries},
            }
        )

    @property
    def nbytes(self) -> int:
        """The size of the file."""
        return len(self._header(self._no_digests())) + self._manifest.data_bytes

    def to_bytes(self) -> bytes:
        """The file in memory, joined once."""
        return b"".join((self._header(self._digests()), *self._pieces()))

    def write(self, file: IO[bytes], *, unchanged: bool = False) -> None:
        """The file straight from the memory of its entries, which is digested while it is written.

        The header of a large file comes last: until then `file`, which must be seekable and empty,
        has none.

        Args:
            file: Where to.
            unchanged: Make sure that the memory is the same before and after it is written, so that the
                digests are surely those of the file, and all of the file is of one moment.

        Raises:
            NotSerializableError: The memory was changed meanwhile.
        """
        if self._manifest.data_bytes < THREADED_FROM_BYTES:
            digests = self._digests()
            _write_joined((self._header(digests), *self._pieces()), file)
            after = self._digests() if unchanged else digests
        else:
            digests, after = self._write_large(file, unchanged=unchanged)
        if after != digests:
            raise NotSerializableError(
                "Tensors were changed while they were written, by another thread or process. Write a copy "
                "of them, or wait until it is done."
            )

    def _write_large(self, file: IO[bytes], *, unchanged: bool) -> tuple[list[str], list[str]]:
        """Write while one other thread digests: once, or once ahead of the writing and once behind it."""
        count = sum(1 for entry in self._entries for _ in entry.slices())
        read, written = Semaphore(0), Semaphore(0)
        with ThreadPoolExecutor(1, thread_name_prefix="rebind-digest") as pool:
            first = pool.submit(self._digests, lambda entry: _told(entry.slices(), read), threads=False)
            first.add_done_callback(lambda _: read.release(count))  # also if it ended with an error
            second = first
            slices: Slices = (each for entry in self._entries for each in entry.slices())
            if unchanged:
                second = pool.submit(
                    self._digests, lambda entry: _awaited(entry.slices(), written), threads=False
                )
                slices = _awaited(slices, read)
            try:
                file.seek(len(self._header(self._no_digests())))
                for each in _told(slices, written):
                    write_whole(each, file)
            finally:
                written.release(count)
            file.seek(0)
            write_whole(self._header(first.result()), file)
            return first.result(), second.result()

    def _no_digests(self) -> list[str]:
        return [NO_DIGEST] * len(self._entries)

    def _digests(
        self, pieces_of: Callable[[Entry], Slices] = Entry.pieces, *, threads: bool = True
    ) -> list[str]:
        return [digest(pieces_of(entry), threads=threads) for entry in self._entries]

    def _pieces(self) -> Slices:
        return (piece for entry in self._entries for piece in entry.pieces())

    def _header(self, digests: list[str]) -> bytes:
        names = [entry.name for entry in self._entries]
        manifest = self._manifest.model_copy(update={"digests": dict(zip(names, digests, strict=True))})
        slots, position = [], 0
        for entry in self._entries:
            stop = position + entry.bytes_in_file
            slots.append(Slot(entry.name, entry.dtype, position, stop))
            position = stop
        return write_header(slots, manifest.model_dump_json(exclude_defaults=True), self._key)


def _write_joined(pieces: Iterable[bytes | memoryview], file: IO[bytes]) -> None:
    """Write small pieces together, and each large one from where it lies."""
    for is_small, group in groupby(pieces, lambda piece: len(piece) < _JOINED_BYTES):
        for each in (b"".join(group),) if is_small else group:
            write_whole(each, file)


def _told(slices: Slices, done: Semaphore) -> Slices:
    """The slices; whoever follows is told when each has been dealt with."""
    for each in slices:
        yield each
        done.release()


def _awaited(slices: Slices, ready: Semaphore) -> Slices:
    """The slices, each not before it has been dealt with elsewhere."""
    for each in slices:
        ready.acquire()
        yield each
