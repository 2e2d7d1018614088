"""Optimizers and schedulers as plain data, which compares exactly and travels between processes."""

from __future__ import annotations

import inspect
import sys
import types
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import Module

# Plain nested tuples of strings and bytes.
Portrait = tuple[Any, ...]

_PLAIN = (bool, int, float, complex, str, bytes, type(None), range, torch.dtype, torch.device)


def portrait_of(model: Module, *subjects: Any) -> Portrait:
    """Describe objects completely: types, attributes, numbers to the last bit, and what is shared.

    Parameters of the model stand as their names, so portraits of the same thing on two models are equal.
    Anything else is told apart: `1` from `1.0`, a float from a tensor, and one list shared by two groups
    from two equal ones.

    Args:
        model: The model whose parameters stand as names.
        subjects: Optimizers, schedulers, or anything that they hold.
    """
    painter = _Painter(model)
    return tuple(painter.paint(subject) for subject in subjects)


def weights_of(model: Module) -> Portrait:
    """Describe the parameters and buffers of a model, to the last bit."""
    return tuple((name, *_tensor(tensor)) for name, tensor in model.state_dict().items())


class _Painter:
    """One set of portraits, in which what appears again is told by its number."""

    def __init__(self, model: Module) -> None:
        self._names: dict[int, str] = {}
        for name, parameter in model.named_parameters():
            self._names[id(parameter)] = name
        self._modules = {id(module): name for name, module in model.named_modules()}
        # What was painted is kept alive, so that no identity is used twice.
        self._seen: dict[int, tuple[int, Any]] = {}

    def paint(self, value: Any) -> Portrait:
        if isinstance(value, _PLAIN):
            return type(value).__name__, repr(value)
        if id(value) in self._names:
            return "parameter", self._names[id(value)]
        if id(value) in self._modules:
            return "module", self._modules[id(value)]
        if isinstance(value, torch.no_grad):  # remembers whoever called it last
            return ("no_grad",)
        if isinstance(value, weakref.ref):
            return "weakly", self.paint(value())
        if isinstance(value, types.MethodType):
            return "method", self.paint(value.__self__), value.__func__.__qualname__
        if isinstance(value, type | types.BuiltinFunctionType):
            return "name", str(value.__module__), value.__qualname__
        if id(value) in self._seen:
            return "again", self._seen[id(value)][0]
        self._seen[id(value)] = (len(self._seen), value)
        painted = self._paint_new(value)
        if isinstance(value, Mapping | list | tuple | types.FunctionType):
            del self._seen[id(value)]  # here two equal ones are as good as one that is shared
        return painted

    def _paint_new(self, value: Any) -> Portrait:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, torch.Tensor):
            return kind, *_tensor(value)
        if isinstance(value, types.FunctionType):
            if _is_importable(value):
                return "name", str(value.__module__), value.__qualname__
            return kind, value.__qualname__, *(self.paint(held) for held in _captured(value))
        if isinstance(value, Mapping):
            items = list(value.items())
            if all(isinstance(key, str) for key in value):  # options are told by name, not by place
                items.sort()
            return kind, *((self.paint(key), self.paint(item)) for key, item in items)
        if isinstance(value, list | tuple | set | frozenset):
            return kind, *(self.paint(item) for item in value)
        if isinstance(value, Module):
            return kind, weights_of(value)
        try:
            return kind, *((name, self.paint(item)) for name, item in vars(value).items())
        except TypeError:  # no attributes: the object tells of itself
            return kind, repr(value)


def _is_importable(function: types.FunctionType) -> bool:
    """Tell whether a name leads to the function; the wrappers that torch puts around its own come and go."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is not None and inspect.unwrap(found) is inspect.unwrap(function)


def _captured(function: types.FunctionType) -> list[Any]:
    cells = function.__closure__ or ()
    return [getattr(cell, "cell_contents", None) for cell in cells]


def _tensor(tensor: torch.Tensor) -> Portrait:
    held = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    data = held.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return str(tensor.dtype), tuple(tensor.shape), tensor.requires_grad, data


def explain_difference(first: Any, second: Any, path: str = "") -> str:
    """Say where two portraits first differ, and what each has there; empty if they are equal."""
    if first == second:
        return ""
    if not (isinstance(first, tuple) and isinstance(second, tuple) and len(first) == len(second)):
        return f"{path or 'portrait'}: {_brief(first)} is not {_brief(second)}"
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        if one != other:
            step = first[0] if index and isinstance(first[0], str) else ""
            return explain_difference(one, other, f"{path}/{step}[{index}]")
    return ""


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
