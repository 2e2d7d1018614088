"""Property tests for those who use rebind: strategies that make evaluators, and checks of what must hold.

The strategies need Hypothesis (`pip install 'rebind[testing]'`); the checks do not. What is here is loaded
when it is first used.

Example:
    >>> from hypothesis import given, strategies
    >>> from rebind.testing import assert_reinitialises_exactly, evaluators, models
    >>> @given(strategies.data())
    ... def test_an_evaluator_survives_its_model(data):
    ...     model = data.draw(models())
    ...     evaluator = data.draw(evaluators(model))
    ...     assert_reinitialises_exactly(evaluator, model.similar(width=5, seed=1))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import assert_pristine, assert_reinitialises_exactly
    from .direct import construct_directly
    from .generated import Generated
    from .strategies import evaluators, lr_schedulers, models, optimizers, renames

__all__ = [
    "Generated",
    "assert_pristine",
    "assert_reinitialises_exactly",
    "construct_directly",
    "evaluators",
    "lr_schedulers",
    "models",
    "optimizers",
    "renames",
]

_HOMES = {
    "Generated": "generated",
    "assert_pristine": "checks",
    "assert_reinitialises_exactly": "checks",
    "construct_directly": "direct",
    "evaluators": "strategies",
    "lr_schedulers": "strategies",
    "models": "strategies",
    "optimizers": "strategies",
    "renames": "strategies",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "hypothesis":
            raise
        raise ImportError(
            f"rebind.testing.{name} needs Hypothesis: install it with pip install 'rebind[testing]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
