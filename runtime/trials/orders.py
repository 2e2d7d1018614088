"""What a worker is told about one trial: a signed message."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from ...serialization import SigningKey, pack, unpack
from ...serialization.imports import look_up
from ...serialization.pickling import global_name
from .messages import read_message, write_message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..naming.matching import Missing
    from ..pools.pool import BytesLike

_KIND = "trial"


@dataclass(frozen=True, slots=True)
class Order:
    """One trial, as its worker gets it.

    Attributes:
        evaluator: The `address` of the evaluator's file, which comes with the job.
        model_file: That of the model's file, where it is in one.
        model: The model or its factory, where it is in none.
        task: As in `Trial`.
        rename: As in `Trial`.
        missing: As in `Trial`.
        arguments: What the task is called with besides the binding, as JSON.
        seed: Seeds the trial.
        state_dict: Whether the result brings the model's weights back.
        devices: The CUDA devices that it may use.
        name: The trial's.
        slot: Its line on the scoreboard.
    """

    evaluator: str
    model_file: str | None
    model: Any
    task: Any
    rename: Any
    missing: Missing
    arguments: dict[str, Any]
    seed: int
    state_dict: bool
    devices: list[int]
    name: str
    slot: int

    def encode(self, key: SigningKey) -> bytes:
        """The order as bytes: objects of the user's by name where they have one, else packed.

        Raises:
            NotSerializableError: One of them cannot be packed.
        """
        objects = {name: getattr(self, name) for name in _OBJECTS}
        told = {name: getattr(self, name) for name in _TOLD} | {"names": _names(objects)}
        body = b"" if told["names"] is not None else pack(objects, kind=_KIND, key=key)
        return write_message(_KIND, told, body, key)

    @classmethod
    def decode(cls, data: BytesLike, key: SigningKey) -> Self:
        """The order that `encode` turned into bytes. This runs the code in it, once its signature fits.

        Tensors in it use the memory of `data` if that is writable.

        Raises:
            SerializationError: One of its subclasses; what is not here to be imported is told by name.
        """
        told, body = read_message(_KIND, data, key)
        if (names := told.pop("names")) is None:
            objects = unpack(body, kind=_KIND, key=key, in_place=not body.readonly)
        else:
            objects = dict.fromkeys(_OBJECTS)
            objects |= {field: look_up(name, needed_by=_KIND) for field, name in names.items()}
        return cls(**told, **objects)


_OBJECTS = ("model", "task", "rename")
_TOLD = [field.name for field in fields(Order) if field.name not in _OBJECTS]


def _names(objects: Mapping[str, Any]) -> dict[str, str] | None:
    """The names of all objects that there are; None if one of them has no name."""
    names = {}
    for field, value in objects.items():
        if value is None:
            continue
        name = global_name(value)
        if name is None:
            return None
        names[field] = name
    return names
