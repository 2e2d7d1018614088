"""Looking at bytes without opening them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .container import Container, open_container
from .files import Path, map_for_reading, open_for_mapping
from .signing import Keys, accepted_keys

if TYPE_CHECKING:
    from .manifest import Manifest


def inspect(
    source: Path | bytes | bytearray | memoryview,
    *,
    max_bytes: int | None = None,
    verify_digests: bool = True,
) -> Manifest:
    """What a file holds. Nothing in it is unpickled, and nothing of its author's is imported.

    Args:
        source: The path of a file, or its bytes.
        max_bytes: Refuse more than this.
        verify_digests: Check that the entries are as they were written, which reads the whole file.

    Raises:
        OSError: The file cannot be opened.
        SerializationError: One of its subclasses: these are not the bytes of a rebind file.
    """
    container = _container(source, max_bytes)
    if verify_digests:
        container.verify()
    return container.manifest


def verify(
    source: Path | bytes | bytearray | memoryview, key: Keys, *, max_bytes: int | None = None
) -> Manifest:
    """Check that bytes are whole and signed with a key, without opening them.

    Args:
        source: The path of a file, or its bytes.
        key: The key or keys one of which must have signed it.
        max_bytes: Refuse more than this.

    Raises:
        OSError: The file cannot be opened.
        SerializationError: One of its subclasses: what is wrong with the bytes or the signature.
    """
    keys = accepted_keys(key)
    container = _container(source, max_bytes)
    container.verify()
    container.verify_signature(keys)
    return container.manifest


def _container(source: Path | bytes | bytearray | memoryview, max_bytes: int | None) -> Container:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return open_container(memoryview(source), max_bytes=max_bytes)
    descriptor = open_for_mapping(source)
    try:
        return open_container(memoryview(map_for_reading(descriptor)), max_bytes=max_bytes)
    finally:
        os.close(descriptor)
