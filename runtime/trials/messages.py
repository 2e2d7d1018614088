"""What crosses between a run and its workers: JSON that says what it is, then bytes, signed as one."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from ...evaluator_schema.errors import TruncatedError
from ...serialization.signing import SigningKey, verify_signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..pools.pool import BytesLike

_HEAD = struct.Struct("!I64s")  # the length of the JSON, and the signature
# A packed value begins with the seal over its header, which has the digest of each of its entries, and
# all of them are checked when it is opened. So the signature need not cover more than that.
_SIGNED_OF_BODY = 256


def write_message(told: Mapping[str, Any], body: BytesLike, key: SigningKey) -> bytes:
    """Put a message together.

    Args:
        told: JSON.
        body: What `pack` gave, or nothing.
        key: Signs both.
    """
    text = json.dumps(told).encode()
    signature = key.sign(_signed(text, body)).encode()
    return b"".join((_HEAD.pack(len(text), signature), text, body))


def read_message(data: BytesLike, key: SigningKey) -> tuple[dict[str, Any], memoryview]:
    """Take a message apart.

    Raises:
        TruncatedError: It is too short to be one.
        SignatureError: It was changed, or signed with another key.
    """
    view = memoryview(data)
    length, signature = _HEAD.unpack_from(view) if len(view) >= _HEAD.size else (0, b"")
    start = _HEAD.size + length
    if len(view) < start:
        raise TruncatedError(f"The message ends after {len(view):,} bytes of {start:,}. Send it again.")
    text, body = bytes(view[_HEAD.size : start]), view[start:]
    verify_signature(_signed(text, body), signature.decode("ascii", "ignore"), key.id, (key,))
    told: dict[str, Any] = json.loads(text)
    return told, body


def _signed(text: bytes, body: BytesLike) -> bytes:
    return len(text).to_bytes(4, "big") + text + bytes(body[:_SIGNED_OF_BODY])
