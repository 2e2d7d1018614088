"""A file that is being opened: its header checked first, then its entries, then its signature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..evaluator_schema.errors import (
    CorruptedError,
    NewerFormatError,
    NotARebindFileError,
    TooLargeError,
    TruncatedError,
    UnsignedError,
)
from .cures import GET_AGAIN
from .digests import NO_DIGEST, digest
from .format import FORMAT, LAYOUT, MAX_FILE_BYTES, PAYLOAD, READABLE
from .header import Header, read_header
from .manifest import Manifest
from .signing import SigningKey, verify_signature
from .strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Container:
    """A file that is being opened.

    Made by `open_container`, which has checked the header; the entries are checked by `verify` and
    `take`.

    Attributes:
        header: Where the entries lie.
        manifest: What they are.
    """

    def __init__(self, data: memoryview, header: Header, manifest: Manifest) -> None:
        self._data = data
        self.header = header
        self.manifest = manifest

    @property
    def bytes_found(self) -> int:
        """How many bytes there are."""
        return len(self._data)

    def entry(self, name: str) -> memoryview:
        """The bytes of an entry as they lie, unchecked."""
        slot = self.header.slots[name]
        return self._data[self.header.length + slot.start : self.header.length + slot.stop]

    def over(self, data: memoryview) -> Container:
        """The same file, in another mapping of it."""
        return Container(data, self.header, self.manifest)

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Check the digests of these entries, or of all.

        Raises:
            CorruptedError: Naming the entry that was changed.
        """
        for name in self.header.slots if names is None else names:
            self._verify(name, self.entry(name))

    def take(self, name: str) -> bytes:
        """A private copy of an entry, checked after it was made, so that it stays so."""
        taken = bytes(self.entry(name))
        self._verify(name, taken)
        return taken

    def verify_signature(self, keys: tuple[SigningKey, ...]) -> bool:
        """Check the signature, if keys were given; whether there was something to check.

        Raises:
            UnsignedError: There are keys, and no signature.
            SignatureError: The signature is not of one of the keys.
        """
        if not keys:
            return False
        if not self.manifest.signed:
            raise UnsignedError(
                "A key was given, and the bytes are not signed. If you trust where they come from, "
                "open them without a key, with trusted=True."
            )
        header = self.header
        verify_signature(header.signed_bytes, header.signature, self.manifest.key_id, keys)
        return True

    def _verify(self, name: str, data: bytes | memoryview) -> None:
        if digest([data]) != self.manifest.digests[name]:
            raise CorruptedError(
                f"The entry {name!r} was changed since it was written: its digest does not fit. {GET_AGAIN}"
            )


def open_container(data: memoryview, *, max_bytes: int | None = None) -> Container:
    """Check the structure of a file and its header.

    Args:
        data: The whole file.
        max_bytes: Refuse more than this; None stands for `MAX_FILE_BYTES`.

    Raises:
        SerializationError: One of its subclasses, for bytes that no rebind wrote.
    """
    check_limit(len(data), max_bytes)
    container = read_container(data)
    check_size(len(data), container.header.file_bytes)
    return container


def read_container(data: memoryview) -> Container:
    """The header and manifest of a file, which may be cut off or go on behind its end.

    Raises:
        SerializationError: One of its subclasses, for a header that no rebind wrote.
    """
    header = read_header(data)
    manifest = _read_manifest(header.manifest)
    for rule, holds in _RULES.items():
        if not holds(header, manifest):
            raise CorruptedError(f"Rebind did not write this file: in one of its own, {rule}. {GET_AGAIN}")
    return Container(data, header, manifest)


def check_limit(found: int, max_bytes: int | None) -> None:
    """Refuse a file that is larger than the limit, or than `MAX_FILE_BYTES` where there is none.

    Raises:
        TooLargeError: It is.
    """
    limit = MAX_FILE_BYTES if max_bytes is None else max_bytes
    if found > limit:
        raise TooLargeError(
            f"There are {found:,} bytes, and the limit is {limit:,}. "
            "If that is what you expect, raise it with max_bytes=."
        )


def _read_manifest(text: str) -> Manifest:
    fields = parse_json(text, "manifest")
    version = fields.get("format") if isinstance(fields, dict) else None
    if type(version) is not int or version < 1:
        raise NotARebindFileError(
            f"The manifest names no format version, so rebind did not write it. {GET_AGAIN}"
        )
    if version > FORMAT:
        raise NewerFormatError(
            f"The bytes are of format {version}, written by {_writer(fields)}; this rebind reads "
            f"up to format {FORMAT}. Update rebind to open them."
        )
    if version not in READABLE:
        raise NotARebindFileError(
            f"The manifest names format {version}, and there is none, so rebind did not write it. {GET_AGAIN}"
        )
    try:
        return Manifest.model_validate_json(text, strict=True)
    except ValueError as error:
        raise CorruptedError(f"The manifest is not one that rebind writes. {GET_AGAIN} {error}") from None


def _writer(fields: dict[str, object]) -> str:
    versions = fields.get("versions")
    version = versions.get("rebind") if isinstance(versions, dict) else None
    return f"rebind {version}" if isinstance(version, str) else "a later rebind"


def check_size(found: int, expected: int) -> None:
    """Check that a file has as many bytes as its header says.

    Raises:
        TruncatedError: It has fewer, or more.
    """
    if found < expected:
        raise TruncatedError(f"The bytes end too early: there are {found:,} of {expected:,}. {GET_AGAIN}")
    if found > expected:
        raise TruncatedError(
            f"The bytes go on too long: there are {found:,}, and the file ends after {expected:,}. "
            f"Something was appended, or only a part of the bytes is the file. {GET_AGAIN}"
        )


def _tensors_have_entries(header: Header, manifest: Manifest) -> bool:
    entries = {tensor.entry for tensor in manifest.tensors} - {None}
    return entries <= header.slots.keys() and (not manifest.tensors or LAYOUT in header.slots)


def _is_signed_or_not(header: Header, manifest: Manifest) -> bool:
    signed = header.signature != NO_DIGEST
    return signed == manifest.signed == (manifest.key_id is not None)


_RULES: Final[dict[str, Callable[[Header, Manifest], bool]]] = {
    "every entry has a digest, and every digest an entry": (
        lambda header, manifest: header.slots.keys() == manifest.digests.keys()
    ),
    "there is a payload": lambda header, _: PAYLOAD in header.slots,
    "the payload is a pickle where fields carry code, and only there": (
        lambda _, manifest: (
            (manifest.payload == "pickle") == bool(manifest.fields) == bool(manifest.code_fields)
        )
    ),
    "a value that is no evaluator is one pickled field": (
        lambda _, manifest: manifest.content == "evaluator" or len(manifest.fields) == 1
    ),
    "every tensor has an entry": _tensors_have_entries,
    "there are a signature and a key id, or neither": _is_signed_or_not,
    "the sizes of the entries add up": (
        lambda header, manifest: header.length + manifest.data_bytes == header.file_bytes
    ),
}
