"""Which memory goes into a file: tensors as spans of shared segments.

A tensor is written as a *span*: a place in a *segment* of memory. Tensors whose memory overlaps
share a segment, so that they overlap again when they come back; what no tensor shows of a storage
is not written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import torch

from .format import LAYOUT, MAX_LISTED_TENSORS
from .layout import Layout, View
from .segments import Piece, Region, Request, place
from .strict_json import parse_json
from .writing import Entry

if TYPE_CHECKING:
    from torch import Tensor, UntypedStorage

    from .manifest import TensorInfo

# Buffers below this stay inside the pickle.
_SMALLEST_BUFFER: Final = 4096


class Buffer(Protocol):
    """An out-of-band buffer of a pickle: `pickle.PickleBuffer`."""

    def raw(self) -> memoryview:
        """Its memory as flat bytes."""


@dataclass(frozen=True, slots=True)
class Span:
    """Stands in a pickle for a place in memory, by number."""

    number: int


class MemoryWriter:
    """Collects the memory that a value refers to while it is pickled.

    Attributes:
        field: The field that is being pickled: names its tensors.
    """

    def __init__(self, field: str) -> None:
        self.field = field
        self._regions: dict[tuple[str, int], Region] = {}
        self._buffers: list[Piece] = []
        self._views: list[View] = []
        self._count = 0
        self._count_in_field: dict[str, int] = {}

    def add_tensor(self, tensor: Tensor) -> Span:
        """A span for the elements of a strided tensor."""
        if not tensor.numel():
            return self._add(tensor, 0, 0)
        size = tensor.element_size()
        start = int(tensor.storage_offset()) * size
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        return self._add(tensor, start, start + (1 + sum((n - 1) * k for n, k in steps)) * size)

    def add_storage(self, storage: UntypedStorage) -> Span:
        """A span for a whole storage."""
        whole = torch.empty(0, dtype=torch.uint8, device=storage.device)
        whole.set_(storage, 0, (storage.nbytes(),), (1,))
        return self._add(whole, 0, storage.nbytes())

    def add_view(self, view: View) -> int:
        """The number of a tensor that is written without a pickle."""
        self._views.append(view)
        return len(self._views) - 1

    def add_buffer(self, buffer: Buffer) -> bool:
        """Take a large buffer out of the pickle; whether it stays inside, as `pickle` asks."""
        memory = buffer.raw()
        if memory.nbytes < _SMALLEST_BUFFER:
            return True
        self._buffers.append(Piece(f"buffer.{self._next_name()}", "U8", memory, "cpu"))
        return False

    def finish(self) -> tuple[list[Entry], list[TensorInfo], int]:
        """The entries to write, the tensors to list, and how many more there are.

        Raises:
            TooLargeError: There are more tensors than a file may have.
        """
        pieces = [*self._buffers]
        for region in self._regions.values():
            pieces.extend(region.pieces())
        if not pieces:
            return [], [], 0
        entries, segments = place(pieces)
        spans = [(0, 0)] * self._count
        wanted: dict[int, tuple[Request, str | None]] = {}
        for number, piece in enumerate(pieces):
            entry = segments[number].entry or None
            for request in piece.requests:
                spans[request.span] = (number, request.start - piece.start)
                wanted[request.span] = request, entry
        layout = Layout(
            segments=tuple(segments),
            spans=tuple(spans),
            buffers=tuple(range(len(self._buffers))),
            views=tuple(self._views),
        )
        written = layout.to_json()
        parse_json(written, "layout")
        shown = [wanted[span] for span in sorted(wanted)[:MAX_LISTED_TENSORS]]
        listed = [request.listed(entry) for request, entry in shown]
        return [*entries, Entry(LAYOUT, (written,))], listed, len(wanted) - len(listed)

    def _add(self, tensor: Tensor, start: int, stop: int) -> Span:
        storage, device = tensor.untyped_storage(), str(tensor.device)
        # By address: a storage may have several owners (NumPy and torch, or two `from_numpy`). All
        # empty tensors of a device share a region, wherever they point to.
        address = 0 if start == stop else storage.data_ptr()
        region = self._regions.setdefault((device, address), Region(storage))
        if storage.nbytes() > region.storage.nbytes():
            region.storage = storage
        span = Span(self._count)
        self._count += 1
        region.requests.append(
            Request(
                span=span.number,
                start=start,
                stop=stop,
                name=self._next_name(),
                dtype=str(tensor.dtype).removeprefix("torch."),
                shape=tuple(tensor.shape),
                element_bytes=tensor.element_size(),
                device=device,
            )
        )
        return span

    def _next_name(self) -> str:
        number = self._count_in_field.get(self.field, 0)
        self._count_in_field[self.field] = number + 1
        return f"{self.field}.{number}"
