"""What comes back from a worker about one trial: a JSON header, then the signed result."""

from __future__ import annotations

import json
import struct
import traceback
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ..pools.pool import BytesLike

_LENGTH = struct.Struct("!I")
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
        score: The trial's score, also where the rest of the result could not be sent.
        detail: The error, as one line.
        error: The names of the error's classes, most special first, separated by spaces.
        trace: The error's traceback.
        body: The packed result.
    """

    status: Status
    seconds: float
    process_id: int
    score: float | None = None
    detail: str = ""
    error: str = ""
    trace: str = ""
    body: BytesLike = b""

    def encode(self) -> bytes:
        """The answer as bytes."""
        header = json.dumps({name: getattr(self, name) for name in _IN_HEADER}).encode()
        return b"".join((_LENGTH.pack(len(header)), header, self.body))

    @classmethod
    def decode(cls, data: BytesLike) -> Self:
        """The answer that `encode` turned into bytes."""
        view = memoryview(data)
        (length,) = _LENGTH.unpack_from(view)
        end = _LENGTH.size + length
        told = json.loads(bytes(view[_LENGTH.size : end]))
        return cls(**told | {"status": Status(told["status"]), "body": view[end:]})


_IN_HEADER = [field.name for field in fields(Answer) if field.name != "body"]


def describe(error: BaseException) -> tuple[str, str]:
    """The error in one line, and its traceback; works for errors that cannot even be printed."""
    try:
        told = str(error)
    except Exception:  # noqa: BLE001 - an error in telling an error must not hide it
        told = "(its message cannot be printed)"
    detail = f"{type(error).__name__}: {told}" if told else type(error).__name__
    return detail[:_LONGEST_DETAIL].rstrip("."), "".join(traceback.format_exception(error))
