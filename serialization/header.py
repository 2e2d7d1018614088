"""The header of a file: the safetensors table of entries, sealed and perhaps signed.

The seal and the signature have fixed widths and fixed places in the header, so that both can be
computed over the header's own bytes, length prefix included, with their own place zeroed. The
signature is made first, the seal then covers it too. So every byte of the header counts, also the
padding and the signature of a file that is opened without a key.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..evaluator_schema.errors import (
    CorruptedError,
    NotARebindFileError,
    TooLargeError,
    TruncatedError,
)
from .cures import GET_AGAIN
from .digests import NO_DIGEST, digest
from .format import ALIGNMENT, MAX_HEADER_BYTES, padding
from .strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .signing import SigningKey

LENGTH_BYTES: Final = 8

_OPENING: Final = b'{"__metadata__":{"rebind.seal":"'
_MIDDLE: Final = b'","rebind.signature":"'
_SEAL: Final = slice(LENGTH_BYTES + len(_OPENING), LENGTH_BYTES + len(_OPENING) + 64)
_SIGNATURE: Final = slice(_SEAL.stop + len(_MIDDLE), _SEAL.stop + len(_MIDDLE) + 64)
_ZEROS: Final = NO_DIGEST.encode()
_MAX_SIZE: Final = 2**63 - 1

DTYPE_BYTES: Final = {
    "U8": 1,
    "I8": 1,
    "BOOL": 1,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "F32": 4,
    "I64": 8,
    "F64": 8,
}


@dataclass(frozen=True, slots=True)
class Slot:
    """Where an entry lies: bytes `start` to `stop` of the data."""

    name: str
    dtype: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header whose seal is right and whose slots lie back to back.

    Attributes:
        slots: The entries by name, in file order.
        manifest: The text of the manifest, not looked into.
        length: Of the header with its length prefix; the data starts there.
        seal: The digest over the header, which covers the digests of all entries: an address for
            the content of the whole file.
        signature: As 64 hexadecimal digits, all zero if there is none.
        signed_bytes: What the signature is made from.
    """

    slots: dict[str, Slot]
    manifest: str
    length: int
    seal: str
    signature: str
    signed_bytes: bytes

    @property
    def file_bytes(self) -> int:
        """The exact size of the file."""
        return self.length + max((slot.stop for slot in self.slots.values()), default=0)


def write_header(slots: Sequence[Slot], manifest: str, key: SigningKey | None) -> bytes:
    """The bytes of a header, signed if there is a key, and sealed.

    Its length depends on the lengths of the arguments only, not on the digests in the manifest.

    Raises:
        TooLargeError: There are more entries than a header may have.
    """
    header = bytearray(_render(slots, manifest))
    if len(header) > MAX_HEADER_BYTES:
        raise TooLargeError(
            f"The manifest takes {len(header):,} bytes, and a file has room for "
            f"{MAX_HEADER_BYTES:,}. Put large data into tensors or arrays, not into names."
        )
    if key is not None:
        header[_SIGNATURE] = key.sign(bytes(header)).encode()
    header[_SEAL] = digest([bytes(header)]).encode()
    return bytes(header)


def read_header(data: memoryview) -> Header:
    """The header of a file, once its structure and its seal are checked.

    Raises:
        SerializationError: One of its subclasses, for bytes that no rebind wrote.
    """
    length = _header_length(data)
    raw = bytes(data[:length])
    unsealed = raw[: _SEAL.start] + _ZEROS + raw[_SEAL.stop :]
    if digest([unsealed]).encode() != raw[_SEAL]:
        raise CorruptedError(
            f"The header was changed since it was written: its seal does not fit. {GET_AGAIN}"
        )
    # From here on with seal and signature zeroed, so that neither can pose as a piece of JSON.
    signed_bytes = unsealed[: _SIGNATURE.start] + _ZEROS + unsealed[_SIGNATURE.stop :]
    table = parse_json(signed_bytes[LENGTH_BYTES:], "header")
    manifest = _manifest_text(table)
    slots = _slots(table)
    if _render(list(slots.values()), manifest) != signed_bytes:
        raise CorruptedError(f"The header is not written the way rebind writes it. {GET_AGAIN}")
    return Header(
        slots=slots,
        manifest=manifest,
        length=length,
        seal=raw[_SEAL].decode(),
        signature=_signature(raw[_SIGNATURE]),
        signed_bytes=signed_bytes,
    )


def _render(slots: Sequence[Slot], manifest: str) -> bytes:
    entries = "".join(
        f',{json.dumps(slot.name)}:{{"dtype":"{slot.dtype}",'
        f'"shape":[{(slot.stop - slot.start) // DTYPE_BYTES[slot.dtype]}],'
        f'"data_offsets":[{slot.start},{slot.stop}]}}'
        for slot in slots
    )
    text = b"".join(
        (
            *(_OPENING, _ZEROS, _MIDDLE, _ZEROS),
            f'","rebind.manifest":{json.dumps(manifest)}}}{entries}}}'.encode("ascii"),
        )
    )
    text += b" " * padding(LENGTH_BYTES + len(text))
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _signature(raw: bytes) -> str:
    if not re.fullmatch(rb"[0-9a-f]{64}", raw):
        raise CorruptedError(f"The signature is not written the way rebind writes it. {GET_AGAIN}")
    return raw.decode()


def _header_length(data: memoryview) -> int:
    _check_opening(data)
    length = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise TooLargeError(
            f"The header claims {length:,} bytes, and rebind writes at most {MAX_HEADER_BYTES:,}. {GET_AGAIN}"
        )
    if length > len(data):
        raise _truncated(len(data), length)
    if length % ALIGNMENT or length < _SIGNATURE.stop:
        raise CorruptedError(f"A header of {length} bytes is none that rebind writes. {GET_AGAIN}")
    return length


def _check_opening(data: memoryview) -> None:
    found = bytes(data[LENGTH_BYTES : LENGTH_BYTES + len(_OPENING)])
    if found == _OPENING:
        return
    if len(data) < LENGTH_BYTES + len(_OPENING) and _OPENING.startswith(found):
        raise _truncated(len(data), _SIGNATURE.stop)
    raise NotARebindFileError(
        f"These {len(data):,} bytes are not a rebind file{_guess(bytes(data[:16]))}. "
        "Name one that rebind wrote."
    )


def _guess(start: bytes) -> str:
    if start.startswith(b"PK\x03\x04"):
        return ", they look like a zip archive, perhaps of torch.save (use torch.load)"
    if start.startswith(b"\x80") and start[1:2] in b"\x02\x03\x04\x05":
        return ", they look like a bare pickle"
    if start[LENGTH_BYTES:].startswith(b"{"):
        return ", they look like a safetensors file without a rebind manifest"
    return ""


def _truncated(found: int, expected: int) -> TruncatedError:
    return TruncatedError(
        f"The bytes end too early: there are {found:,}, and there should be {expected:,} or more. {GET_AGAIN}"
    )


def _manifest_text(table: Any) -> str:
    metadata = table.get("__metadata__") if isinstance(table, dict) else None
    manifest = metadata.get("rebind.manifest") if isinstance(metadata, dict) else None
    if not isinstance(manifest, str):
        raise CorruptedError(f"The header has no manifest. {GET_AGAIN}")
    return manifest


def _slots(table: dict[str, Any]) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    position = 0
    for name, entry in table.items():
        if name == "__metadata__":
            continue
        slots[name] = slot = _slot(name, entry)
        if slot.start != position or slot.stop < slot.start:
            raise CorruptedError(
                f"The entry {name!r} lies at {slot.start}..{slot.stop}, and the one before it "
                f"ends at {position}. {GET_AGAIN}"
            )
        position = slot.stop
    return slots


def _slot(name: str, entry: Any) -> Slot:
    match entry:
        case {
            "dtype": str(dtype),
            "shape": [int(count)],
            "data_offsets": [int(start), int(stop)],
        } if dtype in DTYPE_BYTES and _are_sizes(count, start, stop):
            if count * DTYPE_BYTES[dtype] == stop - start and not (stop - start) % ALIGNMENT:
                return Slot(name, dtype, start, stop)
    raise CorruptedError(
        f"The entry {name!r} has a size, type or place that rebind does not write. {GET_AGAIN}"
    )


def _are_sizes(*values: int) -> bool:
    return all(type(value) is int and 0 <= value <= _MAX_SIZE for value in values)
