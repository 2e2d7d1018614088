"""What a recorded value looks like in JSON: one tag for each kind that JSON lacks."""

from __future__ import annotations

import base64
import enum
import functools
from collections import OrderedDict, deque
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..values import Iterated, ModuleHole, ParameterHole, ParametersHole, Ref
from .importing import is_under, resolve
from .tagging import (
    Context,
    NotDeclarativeError,
    decode,
    encode,
    is_declarative,
    register,
)
from .tensors import decode_tensor, dtype_of_name, encode_tensor, name_of_dtype

__all__ = [
    "Context",
    "NotDeclarativeError",
    "decode",
    "encode",
    "is_declarative",
    "may_be_called",
    "register",
]

# Where functions live that compute and do nothing else, so that a document may have them called with
# arguments of its own. `torch.load` and `torch.hub.load` are not among them.
_COMPUTING = ("torch.nn", "torch.optim", "torch._C._nn")


def may_be_called(target: Any, allow: Any) -> bool:
    """Tell whether a document may have something called with the arguments that it brings along.

    Optimizers, schedulers and modules may be; functions of `torch.nn` too; and whatever is in a
    module that the caller allowed by name. The rest of torch is not: it has functions that run files.
    """
    if isinstance(target, type) and issubclass(target, Optimizer | LRScheduler | torch.nn.Module):
        return True
    home = getattr(target, "__module__", None)
    return isinstance(home, str) and is_under(home, (*_COMPUTING, *allow))


def _items(value: Any, context: Context) -> list[Any]:
    return [encode(item, context) for item in value]


def _list_of(kind: type | tuple[type, ...], held: Any) -> list[Any]:
    if not isinstance(held, list | tuple) or not all(type(item) is kind or kind is object for item in held):
        name = "anything" if kind is object else getattr(kind, "__name__", kind)
        raise ValueError(f"expected a list of {name}, not {held!r:.80}")
    return list(held)


def _text(held: Any) -> str:
    if not isinstance(held, str):
        raise ValueError(f"expected text, not {held!r:.80}")
    return held


def _whole(held: Any) -> int:
    if type(held) is not int or held < 0:
        raise ValueError(f"expected a number of 0 or more, not {held!r:.80}")
    return held


def _size(held: int) -> int:
    if not 0 <= held < 1 << 63:
        raise ValueError(f"{held} is no size")
    return held


def _decoded_items(held: Any, context: Context) -> list[Any]:
    return [decode(item, context) for item in _list_of(object, held)]


def _decode_dict(held: Any, context: Context) -> dict[Any, Any]:
    pairs = [_list_of(object, pair) for pair in _list_of(object, held)]
    return {decode(key, context): decode(item, context) for key, item in pairs}


def _decode_callable(held: Any, context: Context) -> Any:
    found = resolve(_text(held), context.get("allow", ()))
    if not callable(found):
        raise ValueError(f"{held!r} names a {type(found).__name__}, which cannot be called")
    return found


def _decode_enum(held: Any, context: Context) -> Any:
    path, name, *value = _list_of(object, held)
    kind = resolve(_text(path), context.get("allow", ()))
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        raise ValueError(f"{path!r} is no enumeration")
    if name is None and len(value) == 1:
        return kind(decode(value[0], context))
    if name not in kind.__members__ or value:
        raise ValueError(f"{kind.__name__} has no member {name!r}")
    return kind[name]


def _decode_namedtuple(held: Any, context: Context) -> Any:
    path, items = _list_of(object, held)
    kind = resolve(_text(path), context.get("allow", ()))
    if not (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_make")):
        raise ValueError(f"{path!r} is no named tuple")
    return kind._make(_decoded_items(items, context))


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
        return ParametersHole(tuple(_list_of(str, held)))
    if not isinstance(held, dict) or not {"names"} <= set(held) <= {
        "names",
        "named",
        "model_order",
        "aliases",
    }:
        raise ValueError(f"expected names, named, model_order and aliases, not {held!r:.80}")
    aliases = tuple((name, tuple(_list_of(str, more))) for name, more in held.get("aliases", {}).items())
    return ParametersHole(
        tuple(_list_of(str, held["names"])),
        bool(held.get("named", False)),
        bool(held.get("model_order", False)),
        aliases,
    )


def _decode_parameter(held: Any, _: Context) -> ParameterHole:
    name, *aliases = _list_of(str, held if isinstance(held, list) else [held])
    return ParameterHole(name, tuple(aliases))


def _encode_partial(value: functools.partial[Any], context: Context) -> Any:
    return [encode(part, context) for part in (value.func, list(value.args), dict(value.keywords))]


def _decode_partial(held: Any, context: Context) -> functools.partial[Any]:
    func, args, keywords = (decode(part, context) for part in _list_of(object, held))
    if not may_be_called(func, context.get("allow", ())):
        raise ValueError(
            f"{func!r:.80} may not be called with the arguments of a document; to have it called, allow its "
            f"module by name: context={{'allow': [{getattr(func, '__module__', None)!r}]}}"
        )
    return functools.partial(func, *_list_of(object, args), **keywords)


def _decode_device(held: Any, _: Context) -> torch.device:
    try:
        return torch.device(_text(held))
    except RuntimeError as error:
        raise ValueError(f"{held!r} is no device: {error}") from None


register("$float", float, lambda v, _: str(v), lambda held, _: float(_text(held)))
register(
    "$complex",
    complex,
    lambda v, context: [encode(v.real, context), encode(v.imag, context)],
    lambda held, context: complex(*_list_of(float, _decoded_items(held, context))),
)
register(
    "$bytes",
    bytes,
    lambda v, _: base64.b64encode(v).decode(),
    lambda held, _: base64.b64decode(_text(held), validate=True),
)
register("$tuple", tuple, _items, lambda held, context: tuple(_decoded_items(held, context)))
register("$set", set, _items, lambda held, context: set(_decoded_items(held, context)))
register("$frozenset", frozenset, _items, lambda held, context: frozenset(_decoded_items(held, context)))
register(
    "$deque",
    deque,
    lambda v, context: [v.maxlen, _items(v, context)],
    lambda held, context: deque(
        _decoded_items(held[1], context), None if held[0] is None else _whole(held[0])
    ),
)
register(
    "$ordered",
    OrderedDict,
    lambda v, context: [[encode(key, context), encode(item, context)] for key, item in v.items()],
    lambda held, context: OrderedDict(_decode_dict(held, context)),
)
register("$range", range, lambda v, _: [v.start, v.stop, v.step], lambda held, _: range(*_list_of(int, held)))
register(
    "$size", torch.Size, lambda v, _: list(v), lambda held, _: torch.Size(map(_size, _list_of(int, held)))
)
register("$dtype", torch.dtype, lambda v, _: name_of_dtype(v), lambda held, _: dtype_of_name(held))
register("$device", torch.device, lambda v, _: str(v), _decode_device)
register(
    "$iterator",
    Iterated,
    lambda v, context: encode(v.items, context),
    lambda held, context: Iterated(decode(held, context)),
)
register("$partial", functools.partial, _encode_partial, _decode_partial)
register("$ref", Ref, lambda v, _: v.order, lambda held, _: Ref(_whole(held)))
register(
    "$parameter",
    ParameterHole,
    lambda v, _: [v.name, *v.aliases] if v.aliases else v.name,
    _decode_parameter,
)
register("$parameters", ParametersHole, _encode_parameters, _decode_parameters)
register("$module", ModuleHole, lambda v, _: v.name, lambda held, _: ModuleHole(_text(held)))
register("$tensor", torch.Tensor, encode_tensor, decode_tensor)
register("$tensor", torch.nn.Parameter, encode_tensor, decode_tensor)
register("$enum", None, None, _decode_enum)
register("$namedtuple", None, None, _decode_namedtuple)
register("$callable", None, None, _decode_callable)
register("$dict", None, None, _decode_dict)
