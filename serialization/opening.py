"""The order in which bytes are opened: verify, then trust, and only then run anything.

::

    structure and seal      container.open_container
    digests                 every entry
    signature               if a key was given
    environment             Python and libraries, if there is pickled code
    trust                   a key that fits, or trusted=True, if there is pickled code
    imports                 every module and name that the payload looks up
    content                 only now is the payload unpickled, or validated
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .container import Container, open_container
from .environment import check_environment
from .format import LAYOUT, PAYLOAD
from .imports import check_imports
from .layout import Layout, read_layout
from .mapped import MapLocation, MemoryReader
from .pickling import unpickle_fields
from .signing import Keys, accepted_keys
from .strict_json import parse_json
from .trust import require_trust

if TYPE_CHECKING:
    from .manifest import Manifest


@dataclass(frozen=True, slots=True)
class Opened:
    """Bytes that passed every check and whose content has not been touched yet.

    Attributes:
        container: The file.
        layout: Which tensor lies where.
        payload: The checked payload, in memory of its own.
        vouched: Whether somebody vouches for it: a key that fits, or the caller's `trusted=True`.
    """

    container: Container
    layout: Layout
    payload: bytes
    vouched: bool

    @property
    def manifest(self) -> Manifest:
        """What the file says it holds."""
        return self.container.manifest

    def reader(self, map_location: MapLocation, *, in_place: bool) -> MemoryReader:
        """The memory of the tensors; `in_place` if the file's bytes may become that memory."""
        return MemoryReader(self.container, self.layout, map_location, in_place=in_place)

    def over(self, data: memoryview) -> Opened:
        """The same content over another mapping of the file, without checking it again."""
        return Opened(self.container.over(data), self.layout, self.payload, self.vouched)

    def unpickle(self, memory: MemoryReader) -> dict[str, Any]:
        """The fields of a pickled payload. This runs the code in it."""
        return unpickle_fields(self.payload, self.manifest.fields, memory)

    def text(self) -> str:
        """The JSON of a declarative payload."""
        text = self.payload.rstrip(b"\0")
        parse_json(text, "payload")
        return text.decode()


def open_bytes(
    data: memoryview,
    *,
    key: Keys | None,
    trusted: bool,
    max_bytes: int | None = None,
    verify_tensors: bool = True,
) -> Opened:
    """Check everything that can be checked before the content is opened.

    Args:
        data: The whole file.
        key: The key or keys one of which must have signed it.
        trusted: Whether pickled code may run without a key.
        max_bytes: Refuse more than this.
        verify_tensors: Whether to check the digests of the tensors' entries too. The payload and
            the layout are always checked.

    Raises:
        SerializationError: One of its subclasses, for the first check that fails.
    """
    keys = accepted_keys(key)
    container = open_container(data, max_bytes=max_bytes)
    payload, layout = container.take(PAYLOAD), read_layout(container)
    if verify_tensors:
        container.verify(container.header.slots.keys() - {PAYLOAD, LAYOUT})
    vouched = container.verify_signature(keys) or trusted
    check_environment(container.manifest)
    if container.manifest.payload == "pickle":
        require_trust(container.manifest, vouched=vouched)
        check_imports(container.manifest.imports)
    return Opened(container, layout, payload, vouched)
