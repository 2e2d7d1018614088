"""What crosses between a run and its workers: JSON that says what it is, then bytes, signed as one."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from ...evaluator_schema.errors import NotARebindFileError, TruncatedError, WrongKeyError
from ...serialization.format import padding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...serialization import SigningKey
    from ..pools.pool import BytesLike

_HEAD = struct.Struct("!Q64s")  # the length of the JSON, and the signature
_PURPOSE = "message"
# Within these bytes, a packed value has the seal over its header, which has the digest of each of its
# entries; and all of them are checked when it is opened. So the signature need not cover more.
_SIGNED_OF_BODY = 256


def write_message(kind: str, told: Mapping[str, Any], body: BytesLike, key: SigningKey) -> bytes:
    """Put a message together.

    Args:
        kind: What it is.
        told: What it says, as JSON.
        body: What `pack` gave, or nothing.
        key: Signs both.
    """
    text = json.dumps({"kind": kind, **told}).encode()
    # Tensors are used where they lie in the body, and their address may decide on the last bit of a result.
    text += b" " * padding(_HEAD.size + len(text))
    signature = key.sign(_signed(text, body), purpose=_PURPOSE).encode()
    return b"".join((_HEAD.pack(len(text), signature), text, body))


def read_message(kind: str, data: BytesLike, key: SigningKey) -> tuple[dict[str, Any], memoryview]:
    """Take a message apart.

    Raises:
        TruncatedError: It is too short to be one.
        WrongKeyError: It was changed, or signed with another key.
        NotARebindFileError: It is of another kind.
    """
    view = memoryview(data)
    length, signature = _HEAD.unpack_from(view) if len(view) >= _HEAD.size else (0, b"")
    start = _HEAD.size + length
    if len(view) < start:
        raise TruncatedError(f"The message ends after {len(view):,} bytes of {start:,}. Send it again.")
    text, body = bytes(view[_HEAD.size : start]), view[start:]
    if not key.has_signed(_signed(text, body), signature.decode("latin-1"), purpose=_PURPOSE):
        raise WrongKeyError(
            "The message was changed, or signed with another key than that of the run. Send it again."
        )
    told: dict[str, Any] = json.loads(text)
    if (found := told.pop("kind")) != kind:
        raise NotARebindFileError(f"The message is of the kind {found!r}, and not {kind!r}.")
    return told, body


def _signed(text: bytes, body: BytesLike) -> bytes:
    return len(text).to_bytes(8, "big") + text + bytes(body[:_SIGNED_OF_BODY])
