"""The values that a recorded argument may hold, and the leaves that stand for something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    Lists, tuples, named tuples, sets, frozen sets, dicts (their values) and `Iterated` are
    containers. A subclass of list, dict or set is copied as itself, so that what a constructor does
    to it never reaches the record.
    """
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        return kind(each(item) for item in value)
    if kind is dict:
        return {key: each(item) for key, item in value.items()}
    if kind is Iterated:
        return Iterated(each(value.items))
    if is_namedtuple(value):
        return type(value)._make(each(item) for item in value)
    if isinstance(value, Mapping) and hasattr(value, "copy") and hasattr(value, "update"):
        copied = value.copy()
        copied.update({key: each(item) for key, item in value.items()})
        return copied
    return value


def leaves(value: Any) -> list[tuple[tuple[str | int, ...], Any]]:
    """List everything in a value that is no container, each with its path."""
    found: list[tuple[tuple[str | int, ...], Any]] = []
    _collect(value, (), found)
    return found


def _collect(value: Any, path: tuple[str | int, ...], found: list[tuple[tuple[str | int, ...], Any]]) -> None:
    if isinstance(value, Iterated):
        value = value.items
    if isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, (*path, key if isinstance(key, str | int) else repr(key)), found)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            _collect(item, (*path, index), found)
    else:
        found.append((path, value))


def copy_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor that is no parameter, with its device, dtype and `requires_grad`."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)
