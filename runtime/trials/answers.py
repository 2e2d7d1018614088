"""What comes back from a worker about one trial: a signed message."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, fields
from enum import StrEnum
from itertools import starmap
from typing import TYPE_CHECKING, Any, Self

from ...serialization import SigningKey, pack, unpack
from .messages import read_message, write_message

if TYPE_CHECKING:
    from ..pools.pool import BytesLike

_KIND = "result"
_LARGEST_PLAIN = 1 << 63
_LONGEST_PLAIN = 1 << 16  # characters
_LONGEST_DETAIL = 2_000  # characters; a message may hold a whole printed tensor


class Status(StrEnum):
    """How far the worker got with a trial."""

    DONE = "done"
    UNOPENED = "unopened"
    RAISED = "raised"
    UNSENDABLE = "unsendable"


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's answer.

    An error comes as text only: an exception may not unpickle here, and whoever asks for the
    result of one trial must not be hit by the error of another.

    Attributes:
        status: How far it got.
        seconds: How long it took, from the opening of the trial on.
        process_id: The worker's.
        trial: The trial's name; empty where the worker could not even read that.
        score: The trial's score, also where the rest of the result could not be sent.
        detail: The error, as one line.
        error: The names of the error's classes, most special first, separated by spaces.
        trace: The error's traceback.
        plain: The rest of the result where JSON can carry it.
        body: Else the rest of the result, packed.
    """

    status: Status
    seconds: float
    process_id: int
    trial: str = ""
    score: float | None = None
    detail: str = ""
    error: str = ""
    trace: str = ""
    plain: dict[str, Any] | None = None
    body: BytesLike = b""

    def encode(self, key: SigningKey) -> bytes:
        """The answer as bytes, signed."""
        return write_message(_KIND, {name: getattr(self, name) for name in _TOLD}, self.body, key)

    @classmethod
    def decode(cls, data: BytesLike, key: SigningKey) -> Self:
        """The answer that `encode` turned into bytes.

        Raises:
            SerializationError: The bytes are damaged, or signed with another key.
        """
        told, body = read_message(_KIND, data, key)
        return cls(**told | {"status": Status(told["status"]), "body": body})

    def result(self, key: SigningKey) -> dict[str, Any]:
        """What the task gave besides its score: `info`, `value` and `state_dict`.

        Raises:
            Exception: Whatever is raised while the packed result is opened.
        """
        if self.plain is not None:
            return {**self.plain, "state_dict": None}
        body = memoryview(self.body)
        # What came through a channel is writable and nobody else's: tensors may live in it.
        result: dict[str, Any] = unpack(body, kind=_KIND, key=key, in_place=not body.readonly)
        return result


_TOLD = [field.name for field in fields(Answer) if field.name != "body"]


def packed_result(result: dict[str, Any], key: SigningKey) -> dict[str, Any]:
    """How an answer carries a result: its `plain` or its `body`.

    Args:
        result: `info`, `value` and `state_dict`.
        key: Signs it.

    Raises:
        Exception: Whatever is raised while it is packed.
    """
    items = result["info"].items()
    if result["state_dict"] is None and all(starmap(_is_plain, [*items, ("value", result["value"])])):
        return {"plain": {"info": dict(items), "value": result["value"]}}
    return {"body": pack(result, kind=_KIND, key=key)}


def _is_plain(key: Any, value: Any) -> bool:
    """Whether JSON gives back exactly this, of these types, and shortly."""
    kind = type(value)
    return _is_text(key) and (
        value is None
        or kind is bool
        or kind is float
        or (kind is int and abs(value) < _LARGEST_PLAIN)
        or _is_text(value)
    )


def _is_text(value: Any) -> bool:
    """Whether a value is a short string of Unicode. JSON would make one character of two surrogates."""
    if type(value) is not str or len(value) > _LONGEST_PLAIN:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def describe(error: BaseException) -> tuple[str, str]:
    """The error in one line, and its traceback; works for errors that cannot even be printed."""
    try:
        told = str(error)
    except Exception:  # noqa: BLE001 - an error in telling an error must not hide it
        told = "(its message cannot be printed)"
    detail = f"{type(error).__name__}: {told}" if told else type(error).__name__
    return detail[:_LONGEST_DETAIL].rstrip("."), "".join(traceback.format_exception(error))
