"""Why a value cannot be shipped to another process, told down to the captured variable."""

from __future__ import annotations

import abc
import copyreg
import dis
import functools
import io
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..declarative.importing import import_path

# How many objects are looked at when an evaluator is created; the rest is found when it is written.
LIMIT = 10_000

_SAFE = (
    int, float, complex, str, bytes, bytearray, bool, type(None), types.ModuleType, torch.Tensor,
    torch.dtype, torch.device, types.BuiltinFunctionType, range, slice,
)  # fmt: skip


def explain(value: Any, path: str, *, limit: int | None = None) -> list[str]:
    """List what keeps a value from being serialized, each with the path that leads to it.

    Functions that can be imported travel by name; others travel with what they capture, which is
    looked at here. Nothing is pickled: objects are asked how they would be.

    Args:
        value: Any value.
        path: What to call it, for instance `training_func`.
        limit: How many objects to look at at most; None for all.

    Returns:
        One sentence for each problem; an empty list where there is none.
    """
    return list(_Walk(limit).problems(value, path))


class _Walk:
    """One look at everything that a value would take along."""

    def __init__(self, limit: int | None) -> None:
        self._left = limit
        self._seen: dict[int, Any] = {}

    def problems(self, value: Any, path: str) -> Iterator[str]:
        if isinstance(value, _SAFE) or id(value) in self._seen or self._left == 0:
            return
        if self._left is not None:
            self._left -= 1
        self._seen[id(value)] = value
        if any(value is stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)):
            return  # travels by its name
        if isinstance(value, io.IOBase) and not isinstance(value, io.BytesIO | io.StringIO):
            yield (
                f"{path} is an open file ({value!r}), which cannot be serialized; open it inside the function"
            )
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, path)
        elif isinstance(value, functools._lru_cache_wrapper):  # travels with an empty cache
            yield from self.problems(value.__wrapped__, path)
        elif isinstance(value, type):
            yield from self._class(value, path)
        elif isinstance(value, types.MethodType):
            yield from self.problems(value.__self__, f"{path}.__self__")
            yield from self.problems(value.__func__, path)
        elif isinstance(value, Mapping) and type(value) is dict:
            for key, item in list(value.items()):
                yield from self.problems(item, f"{path}[{key!r}]")
        elif type(value) in (list, tuple, set, frozenset):
            for index, item in enumerate(value):
                yield from self.problems(item, f"{path}[{index}]")
        else:
            yield from self._object(value, path)

    def _function(self, function: types.FunctionType, path: str) -> Iterator[str]:
        if import_path(function) is not None:
            return
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:  # a variable that was never set
                continue
            yield from self._held(held, path, "closes over", name)
        for name in _globals_used(function.__code__):
            if name in function.__globals__:
                yield from self._held(function.__globals__[name], path, "uses the global", name)
        for name, held in list(vars(function).items()):
            if name != "__wrapped__":
                yield from self.problems(held, f"{path}.{name}")
        if "__wrapped__" in vars(function):
            yield from self.problems(vars(function)["__wrapped__"], path)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield from self.problems(default, f"a default of {path}")

    def _held(self, held: Any, path: str, how: str, name: str) -> Iterator[str]:
        for found in self.problems(held, _MARK):
            if found.startswith(f"{_MARK} is"):
                yield f"{path} {how} {name!r} ({_kind(held)}), which cannot be serialized"
            elif found.startswith(_MARK):
                yield f"{path} {how} {name!r}: {name}{found.removeprefix(_MARK)}"
            else:
                yield found

    def _class(self, cls: type, path: str) -> Iterator[str]:
        if import_path(cls) is not None or cls.__module__ in ("builtins", "torch"):
            return
        plain = type(cls) in (type, abc.ABCMeta)  # other metaclasses keep things that do not travel
        for name, item in list(vars(cls).items()):
            if name in _NOT_SENT:
                continue
            held = getattr(item, "__func__", None) or getattr(item, "fget", None) or item
            is_slot = isinstance(held, types.MemberDescriptorType | types.GetSetDescriptorType)
            if isinstance(held, types.FunctionType | type) or (plain and not is_slot):
                yield from self.problems(held, f"{path}.{name}")

    def _object(self, value: Any, path: str) -> Iterator[str]:
        if type(value).__module__ == "numpy" or hasattr(value, "__cuda_array_interface__"):
            return
        reducer = copyreg.dispatch_table.get(type(value))
        try:
            reduced = reducer(value) if reducer else value.__reduce_ex__(4)
        except Exception as error:  # noqa: BLE001 - whatever it raises, it cannot be pickled
            if isinstance(value, _PICKLED_BY_CLOUDPICKLE):
                return
            reason = "" if "cannot pickle" in str(error) else f" ({error})"
            yield f"{path} is of type {_kind(value)}, which cannot be serialized{reason}"
            return
        if isinstance(reduced, str):
            if not _is_found(value, reduced):
                yield f"{path} is of type {_kind(value)}, which cannot be serialized here"
            return
        yield from self.problems(type(value), path)
        for index, part in enumerate(reduced[1:]):
            if part is None:
                continue
            if index == 1 and isinstance(part, dict):
                for name, item in part.items():
                    yield from self.problems(item, f"{path}.{name}")
            elif index < 2:
                yield from self.problems(part, path)
            else:
                yield from self.problems(list(part), path)


# Kinds that pickle alone refuses and cloudpickle does not.
_PICKLED_BY_CLOUDPICKLE = (
    types.CodeType, types.CellType, types.GetSetDescriptorType, types.MappingProxyType, property,
    staticmethod, classmethod, memoryview, type({}.keys()), type({}.values()), type({}.items()),
    *(type(getattr(OrderedDict(), view)()) for view in ("keys", "values", "items")),
)  # fmt: skip
_MARK = "\0"
# What of a class is made anew rather than sent.
_NOT_SENT = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "_abc_impl"})


@functools.lru_cache(maxsize=1024)
def _globals_used(code: types.CodeType) -> tuple[str, ...]:
    """List the globals that code refers to, in itself and in the functions it makes."""
    names = [step.argval for step in dis.get_instructions(code) if step.opname in _GLOBAL]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _globals_used(constant)
    return tuple(dict.fromkeys(names))


_GLOBAL = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"})


def _is_found(value: Any, name: str) -> bool:
    """Tell whether a value that travels by name alone is found under it."""
    found: Any = sys.modules.get(getattr(value, "__module__", None) or "")
    if found is None:  # pickle looks through all modules
        return True
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _kind(value: Any) -> str:
    kind = type(value)
    module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"
