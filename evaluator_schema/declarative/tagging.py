"""Values that JSON lacks, written as `{"$tag": ...}`: the table of tags, and the walk over a document."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..errors import RebindError
from ..values import is_namedtuple
from .importing import import_path

# What encoders and decoders share of one document: see `encode` and `decode`.
Context = Mapping[str, Any]

Encoder = Callable[[Any, Context], Any]
Decoder = Callable[[Any, Context], Any]

_encoders: dict[type, tuple[str, Encoder]] = {}
_decoders: dict[str, Decoder] = {}

# How deep a document may be nested; far beyond any argument, far below what Python's stack holds.
_DEEPEST = 100


class NotDeclarativeError(ValueError):
    """A value that JSON cannot carry, such as a closure or an object of the user's own class."""


def register(tag: str, kind: type | None, encoder: Encoder | None, decoder: Decoder) -> None:
    """Let values of exactly the type `kind` stand in JSON as `{tag: encoder(value)}`.

    Args:
        tag: The tag, which starts with a dollar.
        kind: The type, or None for a tag that `encode` gives to values of many types.
        encoder: From a value to JSON; with `kind` only.
        decoder: From that JSON to the value. Whatever it raises is told as a malformed document.
    """
    if kind is not None and encoder is not None:
        _encoders[kind] = (tag, encoder)
    _decoders[tag] = decoder


def encode(value: Any, context: Context) -> Any:
    """Turn a recorded value into plain JSON.

    Args:
        value: Any recorded value.
        context: `write_tensor`, if there, takes a tensor and gives a string to stand for it; without it the
            bytes of tensors are written into the JSON. With `keep`, what JSON lacks stays as it is, and only
            what stands for something else (holes, references, constructions) is written with its tag.

    Raises:
        NotDeclarativeError: The value can only be pickled.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if isinstance(value, float) and not isinstance(value, enum.Enum):  # NumPy's float64 is one, too
        value = float(value)
        return value if math.isfinite(value) or context.get("keep") else {"$float": str(value)}
    if kind is list:
        return [encode(item, context) for item in value]
    if kind is dict:
        return _encode_dict(value, context)
    if context.get("keep"):
        return _encode_kept(value, context)
    if kind in _encoders:
        tag, encoder = _encoders[kind]
        return {tag: encoder(value, context)}
    if isinstance(value, torch.Tensor):
        raise NotDeclarativeError(f"JSON cannot carry a {kind.__name__} of its own kind")
    if isinstance(value, enum.Enum):
        return {"$enum": _encode_enum(value, context)}
    if is_namedtuple(value):
        return {"$namedtuple": [path_or_raise(kind), [encode(item, context) for item in value]]}
    return {"$callable": path_or_raise(value)}


def decode(value: Any, context: Context) -> Any:
    """Turn what `encode` gave back into the recorded value. Anything that is no JSON stays as it is.

    Args:
        value: Parsed JSON.
        context: `read_tensor` undoes `write_tensor`; `allow` lists prefixes of modules that may be
            imported beyond the default ones.

    Raises:
        ValueError: A tag is unknown, what it holds is malformed, or the document is nested too deeply.
        ImportPathError: A callable may not be, or cannot be, imported.
    """
    depth = context.get("depth", 0)
    if depth > _DEEPEST:
        raise ValueError(f"this is nested more than {_DEEPEST} levels deep")
    kind = type(value)
    if kind is list or kind is tuple:
        inner = {**context, "depth": depth + 1}
        return kind([decode(item, inner) for item in value])
    if kind is not dict:
        return value
    inner = {**context, "depth": depth + 1}
    tags = [key for key in value if isinstance(key, str) and key.startswith("$")]
    if tags:
        return _decode_tag(tags[0], value, inner)
    return {key: decode(item, inner) for key, item in value.items()}


def _decode_tag(tag: str, value: dict[Any, Any], context: Context) -> Any:
    if tag not in _decoders:
        raise ValueError(f"{tag!r} is no tag of a recorded value; known are {', '.join(sorted(_decoders))}")
    if len(value) > 1:
        raise ValueError(f"{tag!r} stands alone, and here it has {len(value) - 1} other keys beside it")
    try:
        return _decoders[tag](value[tag], context)
    except (ValueError, RebindError):
        raise
    except RecursionError:
        raise ValueError(f"{tag} is nested too deeply") from None
    except Exception as error:
        raise ValueError(f"{tag} cannot be made of what it holds: {error}") from error


def is_declarative(value: Any) -> bool:
    """Tell whether JSON can carry a recorded value."""
    try:
        encode(value, {"write_tensor": lambda _: ""})
    except NotDeclarativeError:
        return False
    return True


def path_or_raise(value: Any) -> str:
    """Give the import path of a callable.

    Raises:
        NotDeclarativeError: It has none.
    """
    path = import_path(value)
    if path is None:
        raise NotDeclarativeError(
            f"{value!r} has no import path, so JSON cannot carry it; use a function or class at the top "
            "level of an importable module, or write the evaluator with dumps or save, which pickle it"
        )
    return path


def _encode_kept(value: Any, context: Context) -> Any:
    kind = type(value)
    if kind is tuple:
        return tuple(encode(item, context) for item in value)
    if kind in _encoders and kind.__module__.startswith("rebind"):
        tag, encoder = _encoders[kind]
        return {tag: encoder(value, context)}
    return value


def _encode_dict(value: dict[Any, Any], context: Context) -> Any:
    plain = all(type(key) is str or context.get("keep") for key in value)
    if plain and not any(isinstance(key, str) and key.startswith("$") for key in value):
        return {key: encode(item, context) for key, item in value.items()}
    return {"$dict": [[encode(key, context), encode(item, context)] for key, item in value.items()]}


def _encode_enum(value: enum.Enum, context: Context) -> list[Any]:
    path = path_or_raise(type(value))
    if value.name in type(value).__members__:
        return [path, value.name]
    return [path, None, encode(value.value, context)]  # flags that were combined have no name
