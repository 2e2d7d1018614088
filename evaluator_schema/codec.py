"""Recorded values as JSON, and back: what JSON lacks stands as `{"$tag": ...}`."""

from __future__ import annotations

import base64
import enum
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .importing import import_path, resolve
from .values import Iterated, ModuleHole, ParameterHole, ParametersHole, Ref, is_namedtuple

# What encoders and decoders share of one document: see `encode` and `decode`.
Context = Mapping[str, Any]

Encoder = Callable[[Any, Context], Any]
Decoder = Callable[[Any, Context], Any]

_encoders: dict[type, tuple[str, Encoder]] = {}
_decoders: dict[str, Decoder] = {}


class NotDeclarativeError(ValueError):
    """A value that JSON cannot carry, such as a closure or an object of the user's own class."""


def register(tag: str, kind: type, encoder: Encoder, decoder: Decoder) -> None:
    """Let values of exactly the type `kind` stand in JSON as `{tag: encoder(value)}`."""
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
        return value if math.isfinite(value) else {"$float": str(value)}
    if kind is list:
        return [encode(item, context) for item in value]
    if context.get("keep"):
        return _encode_kept(value, context)
    if kind is dict:
        return _encode_dict(value, context)
    if kind in _encoders:
        tag, encoder = _encoders[kind]
        return {tag: encoder(value, context)}
    if isinstance(value, torch.Tensor):
        return {"$tensor": _encode_tensor(value, context)}
    if isinstance(value, enum.Enum):
        return {"$enum": [_path_or_raise(kind), value.name]}
    if is_namedtuple(value):
        return {"$namedtuple": [_path_or_raise(kind), [encode(item, context) for item in value]]}
    return {"$callable": _path_or_raise(value)}


def decode(value: Any, context: Context) -> Any:
    """Turn what `encode` gave back into the recorded value. Anything that is no JSON stays as it is.

    Args:
        value: Parsed JSON.
        context: `read_tensor` undoes `write_tensor`; `allow` lists prefixes of modules that may be
            imported beyond the default ones.

    Raises:
        ValueError: A tag is unknown, or what it holds is malformed.
        ImportPathError: A callable may not be, or cannot be, imported.
    """
    if type(value) in (list, tuple):
        return type(value)(decode(item, context) for item in value)
    if type(value) is not dict:
        return value
    if len(value) == 1:
        ((tag, held),) = value.items()
        if isinstance(tag, str) and tag in _decoders:
            return _decoders[tag](held, context)
    return {key: decode(item, context) for key, item in value.items()}


def is_declarative(value: Any) -> bool:
    """Tell whether JSON can carry a recorded value."""
    try:
        encode(value, {"write_tensor": lambda _: ""})
    except NotDeclarativeError:
        return False
    return True


def _encode_kept(value: Any, context: Context) -> Any:
    kind = type(value)
    if kind is tuple:
        return tuple(encode(item, context) for item in value)
    if kind is dict:
        return {key: encode(item, context) for key, item in value.items()}
    if kind in _encoders and kind.__module__.startswith("rebind"):
        tag, encoder = _encoders[kind]
        return {tag: encoder(value, context)}
    return value


def _path_or_raise(value: Any) -> str:
    path = import_path(value)
    if path is None:
        raise NotDeclarativeError(
            f"{value!r} has no import path, so JSON cannot carry it; use a function or class at the top level "
            "of an importable module, or write the evaluator with dumps or save, which pickle it"
        )
    return path


def _encode_dict(value: dict[Any, Any], context: Context) -> Any:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: encode(item, context) for key, item in value.items()}
    return {"$dict": [[encode(key, context), encode(item, context)] for key, item in value.items()]}


def _encode_tensor(tensor: torch.Tensor, context: Context) -> Any:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
        raise NotDeclarativeError(f"JSON cannot carry a {type(tensor).__name__} of layout {tensor.layout}")
    writer = context.get("write_tensor")
    if writer is not None:
        return writer(tensor)
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return {
        "dtype": _name(tensor.dtype),
        "shape": list(tensor.shape),
        "requires_grad": tensor.requires_grad,
        "data": base64.b64encode(bytes(flat.view(torch.uint8).tolist())).decode(),
    }


def _decode_tensor(held: Any, context: Context) -> torch.Tensor:
    reader = context.get("read_tensor")
    if isinstance(held, str) and reader is not None:
        tensor: torch.Tensor = reader(held)
        return tensor
    dtype, data = _dtype(held["dtype"], context), bytearray(base64.b64decode(held["data"]))
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(held["shape"]).requires_grad_(held.get("requires_grad", False))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: Any, _: Context) -> torch.dtype:
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype of torch")
    return dtype


def _decode_enum(held: Any, context: Context) -> Any:
    kind = resolve(held[0], context.get("allow", ()))
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        raise ValueError(f"{held[0]!r} is no enumeration")
    return kind[held[1]]


def _decode_namedtuple(held: Any, context: Context) -> Any:
    kind = resolve(held[0], context.get("allow", ()))
    if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_make")):
        raise ValueError(f"{held[0]!r} is no named tuple")
    return kind._make(decode(held[1], context))


def _items(value: Any, context: Context) -> list[Any]:
    return [encode(item, context) for item in value]


def _encode_parameters(hole: ParametersHole, _: Context) -> Any:
    options = {
        "named": hole.named,
        "model_order": hole.model_order,
        "aliases": {name: list(more) for name, more in hole.aliases},
    }
    kept = {key: option for key, option in options.items() if option}
    return {"names": list(hole.names), **kept} if kept else list(hole.names)


def _decode_parameters(held: Any, _: Context) -> ParametersHole:
    if isinstance(held, list):
        return ParametersHole(tuple(held))
    aliases = tuple((name, tuple(more)) for name, more in held.get("aliases", {}).items())
    return ParametersHole(
        tuple(held["names"]), held.get("named", False), held.get("model_order", False), aliases
    )


def _encode_partial(value: functools.partial[Any], context: Context) -> Any:
    return [encode(part, context) for part in (value.func, list(value.args), dict(value.keywords))]


def _decode_partial(held: Any, context: Context) -> functools.partial[Any]:
    func, args, keywords = (decode(part, context) for part in held)
    return functools.partial(func, *args, **keywords)


register("$float", float, lambda v, _: str(v), lambda held, _: float(held))
register("$complex", complex, lambda v, _: [v.real, v.imag], lambda held, _: complex(*held))
register(
    "$bytes",
    bytes,
    lambda v, _: base64.b64encode(v).decode(),
    lambda held, _: base64.b64decode(held),
)
register("$tuple", tuple, _items, lambda held, context: tuple(decode(held, context)))
register("$set", set, _items, lambda held, context: set(decode(held, context)))
register("$frozenset", frozenset, _items, lambda held, context: frozenset(decode(held, context)))
register("$range", range, lambda v, _: [v.start, v.stop, v.step], lambda held, _: range(*held))
register("$size", torch.Size, lambda v, _: list(v), lambda held, _: torch.Size(held))
register("$dtype", torch.dtype, lambda v, _: _name(v), _dtype)
register("$device", torch.device, lambda v, _: str(v), lambda held, _: torch.device(held))
register(
    "$iterator",
    Iterated,
    lambda v, context: encode(v.items, context),
    lambda held, context: Iterated(decode(held, context)),
)
register("$partial", functools.partial, _encode_partial, _decode_partial)
register("$ref", Ref, lambda v, _: v.order, lambda held, _: Ref(int(held)))
register(
    "$parameter",
    ParameterHole,
    lambda v, _: [v.name, *v.aliases] if v.aliases else v.name,
    lambda held, _: (
        ParameterHole(held[0], tuple(held[1:])) if isinstance(held, list) else ParameterHole(held)
    ),
)
register("$parameters", ParametersHole, _encode_parameters, _decode_parameters)
register("$module", ModuleHole, lambda v, _: v.name, lambda held, _: ModuleHole(held))
_decoders["$tensor"] = _decode_tensor
_decoders["$enum"] = _decode_enum
_decoders["$namedtuple"] = _decode_namedtuple
_decoders["$callable"] = lambda held, context: resolve(held, context.get("allow", ()))
_decoders["$dict"] = lambda held, context: {decode(key, context): decode(item, context) for key, item in held}
