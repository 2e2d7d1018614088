"""A digest of what an evaluator says, the same in every process that builds the same evaluator.

The bytes of a pickled function differ from run to run; its code, its constants and what it closes
over do not. So these are read, and not its pickle.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import torch
from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Callable

_ATOMS = (type(None), bool, int, float, complex, str, bytes)


def fingerprint(value: Any) -> str:
    """The digest, in hexadecimal digits, of nested values, tensors, functions and plain objects."""
    return _Reader().digest(value).hex()


class _Reader:
    """Reads a value once; what contains itself is told by how far up it was met.

    Whether two equal parts are one object says nothing: Python decides so for its own constants.
    """

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._done: dict[int, bytes] = {}
        self._kept: list[Any] = []  # an identity is an object's own only while the object lives

    def digest(self, value: Any) -> bytes:
        if isinstance(value, _ATOMS):
            return _digest("atom", type(value).__name__, repr(value))
        identity = id(value)
        if identity in self._done:
            return self._done[identity]
        if identity in self._open:
            return _digest("up", len(self._open) - self._open[identity])
        self._open[identity] = len(self._open)
        self._kept.append(value)
        self._done[identity] = self._read(value)
        del self._open[identity]
        return self._done[identity]

    def _read(self, value: Any) -> bytes:
        name = type(value).__name__
        match value:
            case torch.Tensor():
                return _tensor_digest(value)
            case CodeType():
                return _digest("code", value.co_code, *value.co_names, *map(self.digest, value.co_consts))
            case FunctionType():
                return self._function(value)
            case MethodType():
                return _digest("method", self.digest(value.__func__), self.digest(value.__self__))
            case functools.partial():
                return _digest("partial", *map(self.digest, (value.func, value.args, value.keywords)))
            case type() | BuiltinFunctionType():
                return _digest("named", value.__module__ or "", value.__qualname__)
            case ModuleType():
                return _digest("module", value.__name__)
            case Mapping():
                return _digest(name, *(self.digest(part) for item in value.items() for part in item))
            case set() | frozenset():
                return _digest(name, *sorted(map(self.digest, value)))
            case list() | tuple():
                return _digest(name, *map(self.digest, value))
        return self._object(value)

    def _function(self, function: Callable[..., Any]) -> bytes:
        cells = [_content(cell) for cell in function.__closure__ or ()]
        code = function.__code__
        # What it reads of its module; only by name, as a module's content is not the function's.
        told = (function.__defaults__, function.__kwdefaults__, cells)
        return _digest("function", function.__qualname__, self.digest(code), *map(self.digest, told))

    def _object(self, value: Any) -> bytes:
        """An object without a shape of its own: its class and its attributes."""
        cls = f"{type(value).__module__}:{type(value).__qualname__}"
        state = dict(getattr(value, "__dict__", {}))
        for name in _slots(type(value)):
            if hasattr(value, name):
                state[name] = getattr(value, name)
        if not state:
            shown = repr(value)
            return _digest("object", cls, "" if " at 0x" in shown else shown)
        return _digest("object", cls, *(_digest(name, self.digest(state[name])) for name in sorted(state)))


def _slots(cls: type) -> Iterable[str]:
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__"):
                yield name


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _tensor_digest(tensor: torch.Tensor) -> bytes:
    told = ("tensor", str(tensor.dtype), str(tuple(tensor.shape)), str(tensor.layout))
    if tensor.layout is not torch.strided or tensor.is_meta:
        return _digest(*told)
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return _digest(*told, blake3(plain.flatten().view(torch.uint8).numpy().data).digest())


def _digest(*parts: object) -> bytes:
    """The digest of parts, each with its length, so that no two lists of parts look alike."""
    hasher = blake3()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.digest()
