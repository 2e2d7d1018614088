"""Any value to bytes and back, in the container that evaluators use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..evaluator_schema.errors import NotARebindFileError
from .drafting import draft_pickled
from .files import Path, map_privately, open_for_mapping, write_atomically
from .opening import open_bytes
from .seals import VerifyTensors, must_verify

if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping

    from .mapped import MapLocation
    from .signing import Keys
    from .writing import Draft


def pack(
    value: Any, *, kind: str, key: Keys | None = None, summary: Mapping[str, Any] | None = None
) -> bytes:
    """The bytes of a value: tensors and large arrays as entries, the rest pickled.

    Args:
        value: Anything that can be pickled; closures, lambdas and classes of `__main__` as well.
        kind: What it is, for the manifest; `unpack` can ask for it.
        key: Signs the bytes.
        summary: What else the manifest should tell, as JSON values.

    Raises:
        NotSerializableError: Something in it cannot be written; the message says what.
    """
    return draft_value(value, kind=kind, key=key, summary=summary).to_bytes()


def unpack(
    data: bytes | bytearray | memoryview | mmap.mmap,
    *,
    key: Keys | None = None,
    trusted: bool = False,
    kind: str | None = None,
    map_location: MapLocation = None,
    max_bytes: int | None = None,
    in_place: bool = False,
    verify_tensors: bool = True,
) -> Any:
    """The value that `pack` wrote.

    Args:
        data: The bytes.
        key: The key or keys one of which must have signed them.
        trusted: Open pickled code without a key: it can do anything.
        kind: Refuse anything else, so that one signed message cannot pose as another.
        map_location: Where tensors go, as in `torch.load`.
        max_bytes: Refuse more than this.
        in_place: Let the tensors use the memory of `data`, which must be writable and stay
            untouched from now on. Otherwise it is copied.
        verify_tensors: Check the digests of the tensors too. Without it, a change to a tensor's values
            goes unnoticed; everything else is still checked.

    Raises:
        SerializationError: One of its subclasses: what it is and what to do.
    """
    opened = open_bytes(
        memoryview(data), key=key, trusted=trusted, max_bytes=max_bytes, verify_tensors=verify_tensors
    )
    manifest = opened.manifest
    if manifest.content != "value" or kind not in (None, manifest.kind):
        cure = f"unpack it as kind={manifest.kind!r}" if manifest.content == "value" else "use loads"
        raise NotARebindFileError(
            f"These bytes hold the {manifest.content} {manifest.kind!r}, and not the "
            f"{'value' if kind is None else repr(kind)} that was expected. If that is what you want, {cure}."
        )
    (value,) = opened.unpickle(opened.reader(map_location, in_place=in_place)).values()
    return value


def pack_file(
    value: Any,
    path: Path,
    *,
    kind: str,
    key: Keys | None = None,
    summary: Mapping[str, Any] | None = None,
    durable: bool = True,
) -> None:
    """Write what `pack` gives to a file, whole or not at all, without a copy of the tensors.

    Args:
        value: Anything that `pack` takes.
        path: The file; one that is there is replaced.
        kind: What it is, for the manifest; `unpack_file` can ask for it.
        key: Signs the file.
        summary: What else the manifest should tell, as JSON values.
        durable: Wait until the disk has it.

    Raises:
        NotSerializableError: Something in the value cannot be written.
        SaveError: The file cannot.
    """
    write_atomically(path, draft_value(value, kind=kind, key=key, summary=summary).write, durable=durable)


def unpack_file(
    path: Path,
    *,
    key: Keys | None = None,
    trusted: bool = False,
    kind: str | None = None,
    map_location: MapLocation = None,
    max_bytes: int | None = None,
    verify_tensors: VerifyTensors = True,
) -> Any:
    """The value in a file. Its tensors are the mapped file, copied where they are written to.

    Args:
        path: The file.
        key: The key or keys one of which must have signed it.
        trusted: Open pickled code without a key: it can do anything.
        kind: Refuse anything else, so that one signed message cannot pose as another.
        map_location: Where tensors go, as in `torch.load`.
        max_bytes: Refuse a larger file.
        verify_tensors: As in `open_evaluator`.

    Raises:
        SerializationError: One of its subclasses: what it is and what to do.
    """
    descriptor = open_for_mapping(path)
    try:
        mapping = map_privately(descriptor)
        verify = must_verify(descriptor, verify_tensors)
    finally:
        os.close(descriptor)
    return unpack(
        mapping,
        key=key,
        trusted=trusted,
        kind=kind,
        map_location=map_location,
        max_bytes=max_bytes,
        in_place=True,
        verify_tensors=verify,
    )


def draft_value(
    value: Any, *, kind: str, key: Keys | None = None, summary: Mapping[str, Any] | None = None
) -> Draft:
    """What `pack` gives as bytes, about to be written.

    Raises:
        NotSerializableError: Something in the value cannot be written.
    """
    return draft_pickled(
        {kind: value},
        content="value",
        kind=kind,
        key=key,
        summary=summary or {},
        code_fields=[kind],
    )
