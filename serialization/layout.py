"""The `layout` entry: which tensor lies where, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ..evaluator_schema.errors import CorruptedError
from .cures import GET_AGAIN
from .format import LAYOUT
from .strict_json import parse_json

if TYPE_CHECKING:
    from .container import Container

Size = Annotated[int, Field(ge=0, lt=2**63)]


class Segment(NamedTuple):
    """Bytes `offset` to `offset + nbytes` of an entry, from the memory of a device."""

    entry: str
    offset: Size
    nbytes: Size
    device: str


class View(NamedTuple):
    """A tensor of an evaluator that is written without a pickle."""

    span: Size
    dtype: str
    shape: tuple[Size, ...]
    stride: tuple[Size, ...]
    requires_grad: bool
    is_parameter: bool


class Layout(BaseModel):
    """Which tensor lies where.

    Attributes:
        segments: Pieces of memory; an empty one is in no entry.
        spans: For each tensor, the number of its segment, and its offset there in bytes.
        buffers: For each out-of-band buffer of the pickle, the number of its segment.
        views: The tensors of a declarative payload.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    segments: tuple[Segment, ...] = ()
    spans: tuple[tuple[Size, Size], ...] = ()
    buffers: tuple[Size, ...] = ()
    views: tuple[View, ...] = ()

    def to_json(self) -> bytes:
        """The bytes of the entry, without the spaces that pad it."""
        return self.model_dump_json(exclude_defaults=True).encode()


def read_layout(container: Container) -> Layout:
    """The layout of a file, all of whose places exist, with a place for every tensor.

    Raises:
        CorruptedError: It was changed, or is none that rebind writes.
    """
    if LAYOUT not in container.header.slots:
        return Layout()
    text = container.take(LAYOUT).rstrip(b"\0")
    parse_json(text, "layout")
    try:
        layout = Layout.model_validate_json(text, strict=True)
    except ValueError as error:
        raise CorruptedError(f"The layout is not one that rebind writes. {GET_AGAIN} {error}") from None
    slots = container.header.slots
    sizes = {"": 0} | {name: slot.stop - slot.start for name, slot in slots.items()}
    segments = layout.segments
    if not (
        all(each.offset + each.nbytes <= sizes.get(each.entry, -1) for each in segments)
        and all(number < len(segments) for number in layout.buffers)
        and all(
            number < len(segments) and offset <= segments[number].nbytes for number, offset in layout.spans
        )
        and all(view.span < len(layout.spans) for view in layout.views)
    ):
        raise CorruptedError(f"The layout speaks of places that the file does not have. {GET_AGAIN}")
    tensors = len(container.manifest.tensors) + container.manifest.tensors_not_listed
    if len(layout.spans) != tensors:
        raise CorruptedError(
            f"The layout has places for {len(layout.spans)} tensors, and the manifest tells of {tensors}. "
            f"{GET_AGAIN}"
        )
    return layout
