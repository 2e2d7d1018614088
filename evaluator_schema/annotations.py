"""Whether an argument is of the type that its parameter's annotation asks for."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch.optim import Optimizer, lr_scheduler

from .values import Iterated

# Arguments that take more than their annotation says: (class, parameter) -> what else they take.
# Each was found by calling the constructor, of torch 2.13, and training with the result.
ACCEPTED_TOO: dict[tuple[type, str], tuple[type, ...]] = {
    (lr_scheduler.StepLR, "step_size"): (float,),
    (lr_scheduler.LinearLR, "total_iters"): (float,),
    (lr_scheduler.ReduceLROnPlateau, "patience"): (float,),
    (lr_scheduler.CyclicLR, "step_size_up"): (float,),
    (lr_scheduler.CyclicLR, "base_momentum"): (list, tuple),
    (torch.optim.swa_utils.SWALR, "swa_lr"): (list, tuple),
}

# Names that annotations use and that their modules import for type checkers only.
_NAMES: dict[str, Any] = {
    **{name: getattr(collections.abc, name) for name in collections.abc.__all__},
    **{name: getattr(typing, name) for name in typing.__all__},
    "Tensor": torch.Tensor,
    "Optimizer": Optimizer,
    "LRScheduler": lr_scheduler.LRScheduler,
    "Module": torch.nn.Module,
}


def mismatch(target: Callable[..., Any], parameter: inspect.Parameter, value: Any) -> str | None:
    """Say what is wrong with the type of one argument, or give None where nothing is, or nobody can tell.

    The value is compared and never converted: what is lax about numbers stays as torch has it, and a
    string never counts as a number.
    """
    if parameter.annotation is inspect.Parameter.empty or _is_exempt(target, parameter, value):
        return None
    adapter = _adapter(target, parameter.annotation)
    if adapter is None:
        return None
    if isinstance(value, Iterated):
        value = value.items
    try:
        checked = adapter.validate_python(value)
        if isinstance(checked, collections.abc.Iterator):
            checked = list(checked)  # pydantic looks at the items of an Iterable when they are read
        fits = _kept_strings(value, checked)
    except ValidationError:
        fits = False
    except Exception:  # noqa: BLE001 - a type that pydantic cannot check says nothing about the value
        return None
    if fits:
        return None
    wanted = parameter.annotation if isinstance(parameter.annotation, str) else _shown(parameter.annotation)
    return f"{parameter.name!r} must be {wanted}, not {_brief(value)} ({type(value).__name__})"


def _is_exempt(target: Callable[..., Any], parameter: inspect.Parameter, value: Any) -> bool:
    if not isinstance(target, type):
        return False
    return any(
        issubclass(target, owner) and parameter.name == name and isinstance(value, also)
        for (owner, name), also in ACCEPTED_TOO.items()
    ) or (issubclass(target, lr_scheduler.CyclicLR) and parameter.name == "mode")


def _kept_strings(value: Any, checked: Any) -> bool:
    """Tell whether every string came through validation as a string."""
    if isinstance(value, str | bytes):
        return isinstance(checked, type(value))
    if isinstance(value, Mapping) and isinstance(checked, Mapping):
        pairs = zip([*value, *value.values()], [*checked, *checked.values()], strict=False)
        return all(_kept_strings(before, after) for before, after in pairs)
    if isinstance(value, list | tuple) and isinstance(checked, list | tuple):
        return all(map(_kept_strings, value, checked))
    return True


def _adapter(target: Callable[..., Any], annotation: Any) -> TypeAdapter[Any] | None:
    try:
        if isinstance(annotation, str):
            return _adapter_of_text(annotation, _module_of(target))
        return _adapter_of_type(annotation)
    except TypeError:  # an annotation that cannot be hashed
        return None


def _module_of(target: Callable[..., Any]) -> str:
    function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]  # only read
    function = inspect.unwrap(function)
    return getattr(function, "__module__", None) or "builtins"


@functools.lru_cache(maxsize=1024)
def _adapter_of_text(annotation: str, module: str) -> TypeAdapter[Any] | None:
    names = {**_NAMES, **vars(sys.modules.get(module, typing))}
    try:
        # An annotation is code of the module that it stands in, which has run already.
        return _adapter_of_type(eval(annotation, names))  # noqa: S307
    except Exception:  # noqa: BLE001 - an annotation that does not evaluate checks nothing
        return None


@functools.lru_cache(maxsize=1024)
def _adapter_of_type(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # noqa: BLE001 - a type that pydantic does not know checks nothing
        return None


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
