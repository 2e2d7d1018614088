"""The values that a recorded argument may hold, and the leaves that stand for something else."""

from __future__ import annotations

import copy
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Ref:
    """The result of another construction of the same evaluator, told by its `order`."""

    order: int


@dataclass(frozen=True, slots=True)
class ParameterHole:
    """A place for one parameter of the model.

    Attributes:
        name: The parameter's name in the model.
        aliases: Further names of the same parameter, where weights are tied.
    """

    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParametersHole:
    """A place for a list of parameters of the model.

    Attributes:
        names: Their names in the model, in the order in which they were given.
        named: Whether the list holds `(name, parameter)` pairs, as `named_parameters()` gives them.
        model_order: Whether they stood in the order of the model's own `parameters()`.
        aliases: For a tied parameter, its further names, by its name.
    """

    names: tuple[str, ...]
    named: bool = False
    model_order: bool = False
    aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class ModuleHole:
    """A place for the model itself (`name` is empty) or for one of its modules."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Iterated:
    """The items of an iterator, which each build hands over as a fresh iterator.

    Attributes:
        items: A list, or the hole that gives one.
    """

    items: Any


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """An object that stands in several places of an evaluator, and that is one object in each build.

    Attributes:
        number: Tells it from the others that are shared.
        value: The object as it was when it was first recorded.
    """

    number: int
    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class InPlace:
    """A value that is written into the tensor that stands in its place.

    Attributes:
        value: A tensor.
    """

    value: Any


Leaf = Ref | ParameterHole | ParametersHole | ModuleHole

# A name of an unresolved parameter: its place among the recorded ones, in a form no module can have.
UNRESOLVED = "?"


def is_unresolved(name: str) -> bool:
    """Tell whether a hole's name only numbers the parameter."""
    return name.startswith(UNRESOLVED)


def is_namedtuple(value: object) -> bool:
    """Tell whether `value` is an instance of a named tuple's class."""
    return isinstance(value, tuple) and hasattr(type(value), "_make")


def map_container(value: Any, each: Callable[[Any], Any]) -> Any:
    """Copy one container with `each` applied to what it holds; give anything else back as it is.

    Lists, tuples, named tuples, sets, frozen sets, deques, dicts (their values), `Iterated`, `Shared` and
    `InPlace` are containers. A subclass of list or dict is copied as itself, so that what a constructor
    does to it never reaches the record.
    """
    kind = type(value)
    if _is_leaf(kind):
        return value
    if kind in (list, tuple, set, frozenset):
        return kind([each(item) for item in value])
    if kind is dict:
        return {key: each(item) for key, item in value.items()}
    if kind is Iterated:
        return Iterated(each(value.items))
    if kind is Shared:
        return Shared(value.number, each(value.value))
    if kind is InPlace:
        return InPlace(each(value.value))
    if kind is deque:
        return deque(map(each, value), value.maxlen)
    if not is_container(value):
        return value
    if is_namedtuple(value):
        return type(value)._make(each(item) for item in value)
    if isinstance(value, list):
        copied = copy.copy(value)
        copied[:] = [each(item) for item in value]
        return copied
    copied = value.copy()
    copied.update({key: each(item) for key, item in value.items()})
    return copied


def is_container(value: Any) -> bool:
    """Tell whether `map_container` copies a value; one that it cannot copy is a leaf."""
    kind = type(value)
    if _is_leaf(kind):
        return False
    return (
        kind in _COPIED
        or is_namedtuple(value)
        or isinstance(value, list)
        or (isinstance(value, Mapping) and hasattr(value, "copy") and hasattr(value, "update"))
    )


def plain(value: Any) -> Any:
    """Give what an `Iterated`, `Shared` or `InPlace` holds, and anything else as it is."""
    while isinstance(value, _AROUND):
        value = value.items if isinstance(value, Iterated) else value.value
    return value


def leaves(value: Any) -> list[tuple[tuple[str | int, ...], Any]]:
    """List everything in a value that is no container, each with its path."""
    found: list[tuple[tuple[str | int, ...], Any]] = []
    _collect(value, (), found)
    return found


def _collect(value: Any, path: tuple[str | int, ...], found: list[tuple[tuple[str | int, ...], Any]]) -> None:
    if _is_leaf(type(value)):
        found.append((path, value))
        return
    value = plain(value)
    items: Iterable[tuple[str | int, Any]]
    if isinstance(value, _SEVERAL):
        items = enumerate(value)
    elif isinstance(value, Mapping):
        items = ((key if isinstance(key, str | int) else repr(key), item) for key, item in value.items())
    else:
        found.append((path, value))
        return
    for key, item in items:
        if _is_leaf(type(item)):
            found.append(((*path, key), item))
        else:
            _collect(item, (*path, key), found)


def leaf_values(value: Any) -> list[Any]:
    """List what `leaves` lists, without the paths, which cost more than everything else."""
    found: list[Any] = []
    _gather((value,), found)
    return found


def _gather(values: Iterable[Any], found: list[Any]) -> None:
    for value in values:
        if _is_leaf(type(value)):
            found.append(value)
            continue
        held = plain(value)
        if isinstance(held, _SEVERAL):
            _gather(held, found)
        elif isinstance(held, Mapping):
            _gather(held.values(), found)
        else:
            found.append(held)


# Tuples: a union in a call would be made anew by each call.
_AROUND = (Iterated, Shared, InPlace)
_SEVERAL = (list, tuple, set, frozenset, deque)
_CONTAINERS = (Mapping, *_SEVERAL, *_AROUND)
_COPIED = frozenset({dict, *_SEVERAL, *_AROUND})
# Which types are leaves: asking for each value anew would be most of the cost of large optimizers.
_LEAVES: dict[type, bool] = {}
# Types that live as long as the process; remembering a user's class would keep it alive.
_LASTING = frozenset({"builtins", "torch", __name__.partition(".")[0]})


def _is_leaf(kind: type) -> bool:
    known = _LEAVES.get(kind)
    if known is None:
        known = not issubclass(kind, _CONTAINERS)
        if kind.__module__.partition(".")[0] in _LASTING:
            _LEAVES[kind] = known
    return known


def copy_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor that is no parameter, with its device, dtype and `requires_grad`."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def copy_callable(value: Any) -> Any:
    """Copy an object of the user's that can be called, since it may keep state between its calls."""
    if not callable(value) or isinstance(value, _STATELESS | type | torch.nn.Module):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - what cannot be copied is shared, as the user's own code would
        return value


_STATELESS = types.FunctionType | types.BuiltinFunctionType | types.MethodType
