"""Whether an argument is of the type that its parameter's annotation asks for."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import numbers
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch.optim import Optimizer, lr_scheduler

from ..values import Iterated
from .signatures import shortened

# Arguments that take more than their annotation says: (class, parameter) -> what else they take.
# Each was found by calling the constructor, of torch 2.13, and training with the result.
ACCEPTED_TOO: dict[tuple[type, str], Any] = {
    # These are only counted up to, or divided by.
    (torch.optim.LBFGS, "max_iter"): float,
    (torch.optim.LBFGS, "max_eval"): float,
    (lr_scheduler.StepLR, "step_size"): float,
    (lr_scheduler.ConstantLR, "total_iters"): float,
    (lr_scheduler.LinearLR, "total_iters"): float,
    (lr_scheduler.PolynomialLR, "total_iters"): float,
    (lr_scheduler.CosineAnnealingLR, "T_max"): float,
    (lr_scheduler.MultiStepLR, "milestones"): collections.abc.Iterable[float],
    (lr_scheduler.ReduceLROnPlateau, "patience"): float,
    (lr_scheduler.ReduceLROnPlateau, "cooldown"): float,
    (lr_scheduler.CyclicLR, "step_size_up"): float,
    (lr_scheduler.CyclicLR, "step_size_down"): float,
    # These may be told for each group.
    (lr_scheduler.CyclicLR, "base_momentum"): list[float],
    (lr_scheduler.CyclicLR, "max_momentum"): list[float],
    (torch.optim.swa_utils.SWALR, "swa_lr"): list[float],
    # These are not looked at where other arguments stand in for them.
    (lr_scheduler.CyclicLR, "mode"): str | None,
    (lr_scheduler.CyclicLR, "gamma"): None,
    (lr_scheduler.CyclicLR, "scale_mode"): str | None,
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
    if parameter.annotation is inspect.Parameter.empty:
        return None
    adapter = _adapter(target, parameter.annotation)
    if adapter is None:
        return None
    if isinstance(value, Iterated):
        value = value.items
    if _fits(adapter, value) or _fits_too(target, parameter, value):
        return None
    wanted = parameter.annotation if isinstance(parameter.annotation, str) else _shown(parameter.annotation)
    return f"{parameter.name!r} must be {wanted}, not {shortened(value, 60)} ({type(value).__name__})"


def _fits_too(target: Callable[..., Any], parameter: inspect.Parameter, value: Any) -> bool:
    """Tell whether a value that is not of the annotated type works all the same."""
    if parameter.annotation in _TRUTHS:  # any number, and None, stands for true or false
        return value is None or _is_number(value)
    if not isinstance(target, type):
        return False
    return any(
        issubclass(target, owner) and parameter.name == name and _fits(_adapter_of_type(also), value)
        for (owner, name), also in ACCEPTED_TOO.items()
    )


_TRUTHS = (bool, "bool", bool | None, "bool | None", "Optional[bool]")


def _is_number(value: Any) -> bool:
    """Tell a number of any kind, NumPy's and tensors of one element included."""
    if isinstance(value, numbers.Real):
        return True
    shape = getattr(value, "shape", None)
    return shape is not None and math.prod(shape) == 1 and hasattr(value, "item")


def _fits(adapter: TypeAdapter[Any] | None, value: Any) -> bool:
    """Tell whether a value is of a type; a type that nothing can check fits everything."""
    if adapter is None:
        return True
    if isinstance(value, str) and type(value) is not str:  # a member of a string enumeration is its string
        value = str.__str__(value)
    if not isinstance(value, int | float) and hasattr(value, "shape") and _is_number(value):
        return _validates(adapter, value) or _fits_as_number(adapter, value)
    return _validates(adapter, value)


def _fits_as_number(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        number = value.item()
    except RuntimeError:  # bits, packed integers and the meta device have no number that could be checked
        return True
    return _validates(adapter, number)


def _validates(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        checked = adapter.validate_python(value)
        if isinstance(checked, collections.abc.Iterator):
            checked = list(checked)  # pydantic looks at the items of an Iterable when they are read
        return _kept(value, checked)
    except ValidationError:
        return False
    except Exception:  # noqa: BLE001 - a type that pydantic cannot check says nothing about the value
        return True


def _kept(value: Any, checked: Any) -> bool:
    """Tell whether every string came through validation as a string, and no set as a sequence."""
    if isinstance(value, str | bytes):
        return isinstance(checked, type(value))
    if isinstance(value, set | frozenset):
        return not isinstance(checked, list | tuple)
    if isinstance(value, Mapping):
        if not isinstance(checked, Mapping):  # pydantic made a data class of it; the target would not
            return False
        pairs = zip([*value, *value.values()], [*checked, *checked.values()], strict=False)
        return all(_kept(before, after) for before, after in pairs)
    if isinstance(value, list | tuple) and isinstance(checked, list | tuple):
        return all(map(_kept, value, checked))
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
        return _adapter_of_type(eval(annotation, names))  # noqa: S307 - as said
    except Exception:  # noqa: BLE001 - an annotation that does not evaluate checks nothing
        return None


@functools.lru_cache(maxsize=1024)
def _adapter_of_type(annotation: Any) -> TypeAdapter[Any] | None:
    for config in (ConfigDict(arbitrary_types_allowed=True), None):  # data classes have their own
        try:
            return TypeAdapter(annotation, config=config)
        except Exception:  # noqa: BLE001, S112 - a type that pydantic does not know checks nothing
            continue
    return None


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
