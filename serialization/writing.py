"""A file about to be written: entries, and a manifest that gets their digests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from .digests import NO_DIGEST, THREADED_FROM_BYTES, digest
from .format import padding
from .header import Slot, write_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .manifest import Manifest
    from .signing import SigningKey

_ZEROS: Final = bytes(64)


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

    def pieces(self) -> Iterator[bytes | memoryview]:
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

    def write(self, file: IO[bytes]) -> None:
        """The file straight from the memory of its entries, which is digested while it is written.

        The header of a large file comes last: until then `file`, which must be seekable and empty,
        has none.
        """
        if self._manifest.data_bytes < THREADED_FROM_BYTES:
            file.writelines((self._header(self._digests()), *self._pieces()))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="rebind-digest") as pool:
            digests = pool.submit(self._digests, threads=False)
            file.seek(len(self._header(self._no_digests())))
            for piece in self._pieces():
                file.write(piece)
            file.seek(0)
            file.write(self._header(digests.result()))

    def _no_digests(self) -> list[str]:
        return [NO_DIGEST] * len(self._entries)

    def _digests(self, *, threads: bool = True) -> list[str]:
        return [digest(entry.pieces(), threads=threads) for entry in self._entries]

    def _pieces(self) -> Iterator[bytes | memoryview]:
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
