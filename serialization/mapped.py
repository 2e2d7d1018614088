"""Memory of a file as tensors: in place over a private mapping, or copied, or on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, UntypedStorage

from ..evaluator_schema.errors import CorruptedError, InvalidPayloadError
from . import rebuild
from .cures import GET_AGAIN
from .segments import flat_bytes

if TYPE_CHECKING:
    from .container import Container
    from .layout import Layout

MapLocation: TypeAlias = (
    str | torch.device | Mapping[str, str] | Callable[[UntypedStorage, str], UntypedStorage | None] | None
)


class MemoryReader:
    """Gives back the memory of a file, each segment once.

    Args:
        container: The file.
        layout: What lies where in it.
        map_location: Where tensors go, as in `torch.load`: a device for all, a mapping from the
            device a tensor was on to the one it goes to, or a function of the storage on the CPU
            and that device's name. What it does not say goes to the CPU.
        in_place: Whether the file's bytes are writable memory of our own, and become the tensors'
            memory. Otherwise they are copied.
    """

    def __init__(
        self,
        container: Container,
        layout: Layout,
        map_location: MapLocation = None,
        *,
        in_place: bool,
    ) -> None:
        self._container = container
        self._layout = layout
        self._map_location = map_location
        self._in_place = in_place
        self._storages: dict[int, UntypedStorage] = {}

    def place(self, span: object) -> rebuild.Place:
        """The storage of a span, and its offset there in bytes."""
        spans = self._layout.spans
        if not isinstance(span, int) or not 0 <= span < len(spans):
            raise CorruptedError(
                f"The payload refers to a tensor {span!r} that is not in the file. {GET_AGAIN}"
            )
        segment, offset = spans[span]
        if segment not in self._storages:
            self._storages[segment] = self._on_device(segment, self._on_cpu(segment))
        return self._storages[segment], offset

    def buffers(self) -> Iterator[memoryview]:
        """The out-of-band buffers in their order, each writable."""
        return (flat_bytes(self._flat(segment)) for segment in self._layout.buffers)

    def view(self, number: int) -> Tensor:
        """A tensor of a declarative payload, which may come from a stranger.

        Raises:
            CorruptedError: There is none, or it would reach beyond its memory.
        """
        if not 0 <= number < len(self._layout.views):
            raise CorruptedError(
                f"The payload refers to a tensor {number} that is not in the file. {GET_AGAIN}"
            )
        span, dtype, shape, stride, requires_grad, is_parameter = self._layout.views[number]
        try:
            tensor = rebuild.tensor(self.place(span), dtype, shape, stride, requires_grad)
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptedError(
                f"The tensor {number} does not fit its memory: {error}. {GET_AGAIN}"
            ) from None
        return torch.nn.Parameter(tensor, requires_grad) if is_parameter else tensor

    def _on_cpu(self, segment: int) -> UntypedStorage:
        return self._flat(segment).untyped_storage()

    def _flat(self, segment: int) -> Tensor:
        entry, offset, size, _ = self._layout.segments[segment]
        if not size:
            return torch.empty(0, dtype=torch.uint8, device="cpu")
        memory = self._container.entry(entry)[offset : offset + size]
        if self._in_place:
            return torch.frombuffer(memory, dtype=torch.uint8)
        copy = torch.empty(size, dtype=torch.uint8, device="cpu")
        flat_bytes(copy)[:] = memory
        return copy

    def _on_device(self, segment: int, storage: UntypedStorage) -> UntypedStorage:
        to, source = self._map_location, self._layout.segments[segment].device
        if to is None:
            return storage
        try:
            if callable(to):
                result = to(storage, source)
                return storage if result is None else result
            target = to.get(source, "cpu") if isinstance(to, Mapping) else to
            flat = torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage)
            moved = flat.to(torch.device(target)).untyped_storage()
        except (RuntimeError, AssertionError) as error:
            raise InvalidPayloadError(
                f"A tensor from {source!r} cannot go where map_location={to!r} says. Name a device that is "
                f"here, or none for the CPU: {error}"
            ) from error
        return moved
