"""Segments: the pieces of memory that tensors share, and where each lies in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch

from .format import ALIGNMENT, MAX_MEMORY_ENTRIES, padding
from .layout import Segment
from .manifest import TensorInfo
from .writing import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, UntypedStorage

# Two views of one storage with no more than this between them stay in one segment.
_LARGEST_GAP: Final = 4096

_SHARED_ENTRY: Final = "tensors.small"

_ENTRY_DTYPES: Final = {
    "bool": "BOOL",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}


@dataclass(frozen=True, slots=True)
class Request:
    """Bytes `start` to `stop` of a region, wanted for the tensor with number `span`."""

    span: int
    start: int
    stop: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    element_bytes: int
    device: str

    def listed(self, entry: str | None) -> TensorInfo:
        """The tensor as the manifest tells of it."""
        return TensorInfo(
            name=self.name,
            dtype=self.dtype,
            shape=self.shape,
            bytes=math.prod(self.shape) * self.element_bytes,
            device=self.device,
            entry=entry,
        )


@dataclass(slots=True)
class Region:
    """The memory of one storage. It is held, so that nothing else gets its address meanwhile."""

    storage: UntypedStorage
    requests: list[Request] = field(default_factory=list)

    def pieces(self) -> Iterator[Piece]:
        """What of the storage is wanted: one piece for requests that overlap or lie close by."""
        group: list[Request] = []
        stop = 0
        for request in sorted(self.requests, key=lambda each: (each.start, each.span)):
            if group and request.start > stop + _LARGEST_GAP:
                yield self._piece(group, stop)
                group = []
            stop = max(stop, request.stop) if group else request.stop
            group.append(request)
        yield self._piece(group, stop)

    def _piece(self, group: list[Request], stop: int) -> Piece:
        # Aligned, so that the offsets of all dtypes in the piece stay multiples of their sizes.
        start = group[0].start - group[0].start % ALIGNMENT
        dtypes = {_ENTRY_DTYPES.get(request.dtype, "U8") for request in group}
        return Piece(
            name=f"tensor.{group[0].name}",
            dtype=dtypes.pop() if len(dtypes) == 1 else "U8",
            memory=_bytes_of(self.storage, start, stop),
            device=group[0].device,
            start=start,
            requests=tuple(group),
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment before it has a place in the file.

    Attributes:
        name: Its entry's name, if it gets one of its own.
        dtype: That entry's type.
        memory: Its bytes, on the CPU.
        device: Where they are from.
        start: Where they begin in their region.
        requests: Who asked for them.
    """

    name: str
    dtype: str
    memory: memoryview
    device: str
    start: int = 0
    requests: tuple[Request, ...] = ()


def place(pieces: Sequence[Piece]) -> tuple[list[Entry], list[Segment]]:
    """The entries for these pieces, and each piece's place there.

    The largest pieces have entries of their own, and the rest shares one, so that the header stays
    small.
    """
    by_size = sorted(range(len(pieces)), key=lambda number: -len(pieces[number].memory))
    alone = set(by_size[:MAX_MEMORY_ENTRIES])
    entries: list[Entry] = []
    segments: list[Segment] = []
    shared: list[memoryview] = []
    position = 0
    for number, piece in enumerate(pieces):
        size = len(piece.memory)
        if not size:
            segments.append(Segment("", 0, 0, piece.device))
        elif number in alone:
            segments.append(Segment(piece.name, 0, size, piece.device))
            entries.append(Entry(piece.name, (piece.memory,), piece.dtype))
        else:
            segments.append(Segment(_SHARED_ENTRY, position, size, piece.device))
            shared.append(piece.memory)
            position += size + padding(size)
    if shared:
        entries.append(Entry(_SHARED_ENTRY, tuple(shared)))
    return entries, segments


def flat_bytes(flat: Tensor) -> memoryview:
    """The memory of a flat tensor of bytes on the CPU, without a copy."""
    return memoryview(flat.numpy())  # type: ignore[arg-type]  # typeshed's Buffer needs Python 3.12


def _bytes_of(storage: UntypedStorage, start: int, stop: int) -> memoryview:
    if start == stop:
        return memoryview(b"")
    flat = torch.empty(0, dtype=torch.uint8, device=storage.device)
    flat.set_(storage, start, (stop - start,), (1,))
    return flat_bytes(flat.cpu())
