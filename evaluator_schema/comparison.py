"""Equality by content, also for what Python compares by identity: tensors, functions, plain objects."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from pydantic import BaseModel

from . import values

# Where a call stands is for people; two evaluators are the same wherever they were written.
_IGNORED_FIELDS = frozenset({"location"})
# Its classes may hold tensors, so they are compared part by part.
_VALUES = values.__name__


def same(first: Any, second: Any) -> bool:
    """Tell whether two values have the same content.

    Tensors are the same if dtype, shape and every element are (NaN equals NaN); functions, if their
    code, defaults and captured values are; objects without an equality of their own, if they are of
    one class and their attributes are the same.
    """
    return next(differences(first, second), None) is None


def differences(first: Any, second: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Walk the places where two values differ, as `(path, first's, second's)`."""
    return _differences(first, second, path, set())


def _differences(
    first: Any, second: Any, path: str, seen: set[tuple[int, int]]
) -> Iterator[tuple[str, Any, Any]]:
    if first is second or (id(first), id(second)) in seen:
        return
    if isinstance(first, types.MethodType) and isinstance(second, types.MethodType):
        first, second = first.__func__, second.__func__
    if type(first) is not type(second):
        if not _equal(first, second):
            yield path, first, second
        return
    if isinstance(first, torch.Tensor):
        if not _same_tensor(first, second):
            yield path, first, second
        return
    if isinstance(first, int | float | complex | str | bytes):
        if not (first == second or (first != first and second != second)):  # noqa: PLR0124 - NaN
            yield path, first, second
        return
    seen.add((id(first), id(second)))
    yield from _different_parts(first, second, path, seen)


def _different_parts(
    first: Any, second: Any, path: str, seen: set[tuple[int, int]]
) -> Iterator[tuple[str, Any, Any]]:
    parts, others = _parts(first), _parts(second)
    if parts is None or others is None:
        if not _equal(first, second):
            yield path, first, second
        return
    for key in [*parts, *(key for key in others if key not in parts)]:
        place = f"{path}.{key}" if path else str(key)
        if key not in parts or key not in others:
            yield place, parts.get(key, _ABSENT), others.get(key, _ABSENT)
        else:
            yield from _differences(parts[key], others[key], place, seen)


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


_ABSENT = _Absent()


def _parts(value: Any) -> dict[Any, Any] | None:
    """Split a value into what its content consists of, or give None for one that compares by itself."""
    if isinstance(value, BaseModel):
        return {
            name: getattr(value, name) for name in type(value).model_fields if name not in _IGNORED_FIELDS
        }
    if is_dataclass(value) and type(value).__module__ == _VALUES:
        return {part.name: getattr(value, part.name) for part in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if isinstance(value, types.FunctionType):
        return _parts_of_function(value)
    if isinstance(value, functools.partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    kind: Any = type(value)
    if isinstance(value, type) or kind.__eq__ is not object.__eq__ or not hasattr(value, "__dict__"):
        return None
    return dict(vars(value))


def _parts_of_function(function: types.FunctionType) -> dict[Any, Any]:
    cells = function.__closure__ or ()
    captured = dict(zip(function.__code__.co_freevars, map(_cell_value, cells), strict=True))
    return {
        "code": function.__code__,
        "defaults": function.__defaults__,
        "keyword_defaults": function.__kwdefaults__,
        **captured,
    }


def _cell_value(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that was never set
        return _ABSENT


def _same_tensor(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape or first.layout != second.layout:
        return False
    if first.device != second.device:
        second = second.to(first.device)
    try:
        if first.is_floating_point() or first.is_complex():
            both_nan = (first != first) & (second != second)  # noqa: PLR0124 - only NaN differs from itself
            return bool(((first == second) | both_nan).all())
        return torch.equal(first, second)
    except (RuntimeError, NotImplementedError):  # float8 and the like know no comparison
        return torch.equal(first.view(torch.uint8), second.view(torch.uint8))


def _equal(first: Any, second: Any) -> bool:
    try:
        return bool(first == second)
    except Exception:  # noqa: BLE001 - arrays and the like answer with more than yes or no
        return False
