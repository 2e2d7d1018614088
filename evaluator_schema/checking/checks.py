"""What the callables of an evaluator must be able to take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .signatures import name_of, signature_of

# What is handed to `training_func` by name, if it names it.
TRAINING_OPTIONS = ("lr_schedulers", "max_steps", "max_epochs")


def training_problem(function: Any) -> str | None:
    """Say why a function cannot train, or give None."""
    if not callable(function):
        return f"training_func must be a function of (model, optimizers, criterion, ...), not {function!r}"
    return _call_problem(
        function,
        "training_func",
        ("model", "optimizers", "criterion"),
        TRAINING_OPTIONS,
    )


def evaluating_problem(function: Any) -> str | None:
    """Say why a function cannot evaluate, or give None."""
    if not callable(function):
        return f"evaluating_func must be a function of (model), not {function!r}"
    return _call_problem(function, "evaluating_func", ("model",), ())


def criterion_problem(function: Any, field: str, takes: tuple[str, ...]) -> str | None:
    """Say why a function cannot compute a loss, or give None."""
    if not callable(function):
        return f"{field} must be a function of ({', '.join(takes)}), not {function!r}"
    if inspect.isclass(function):
        return (
            f"{field} must be a function, and {name_of(function)} is a class: pass an instance, "
            f"{name_of(function)}()"
        )
    return _call_problem(function, field, takes, ())


def _call_problem(
    function: Callable[..., Any],
    field: str,
    positional: tuple[str, ...],
    options: tuple[str, ...],
) -> str | None:
    signature = signature_of(function)
    if signature is None:
        return None
    given = {name: None for name in options if _takes(signature, name, len(positional))}
    try:
        signature.bind(*positional, **given)
    except TypeError as error:
        wanted = ", ".join((*positional, *(f"{name}=None" for name in options)))
        return f"{field} is called with ({wanted}), and {name_of(function)}{signature} does not fit: {error}"
    return None


def _takes(signature: inspect.Signature, name: str, used: int) -> bool:
    """Tell whether a parameter of this name is left for a keyword, past those filled by position."""
    for place, parameter in enumerate(signature.parameters.values()):
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return True
        if parameter.name == name:
            by_keyword = parameter.kind in (
                inspect.Parameter.KEYWORD_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
            )
            return by_keyword and (place >= used or parameter.kind is inspect.Parameter.KEYWORD_ONLY)
    return False


def options_of(function: Callable[..., Any]) -> frozenset[str]:
    """Tell which of `TRAINING_OPTIONS` a training function takes."""
    signature = signature_of(function)
    if signature is None:
        return frozenset()
    return frozenset(name for name in TRAINING_OPTIONS if _takes(signature, name, 3))
