"""What an evaluating function may return, and the one form in which callers get it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch

from ...evaluator_schema.errors import EvaluationError


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation; unpacks as `score, info`.

    Attributes:
        score: The metric, higher is better; None where the function gave only information.
        info: Whatever else it told.
    """

    score: float | None
    info: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Any]:
        yield self.score
        yield self.info


def evaluation_of(value: Any) -> Evaluation:
    """Read what an evaluating function returned.

    Args:
        value: A number, a tensor with one element, `(score, info)`, or a mapping with the score as `default`.

    Raises:
        EvaluationError: It is anything else, or the score is no number.
    """
    if isinstance(value, Evaluation):
        return value
    if isinstance(value, Mapping):
        if "default" not in value:
            raise EvaluationError(
                "evaluating_func returned a mapping without 'default'; name the score so: "
                f"{sorted(map(str, value))}"
            )
        return Evaluation(_number(value["default"]), dict(value))
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping):
        return Evaluation(_number(value[0]), dict(value[1]))
    return Evaluation(_number(value))


def _number(value: Any) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool):
        raise EvaluationError(f"evaluating_func returned {value}; the score must be a number")
    if isinstance(value, Real) or (hasattr(value, "__float__") and getattr(value, "shape", None) == ()):
        number = float(value)
        if math.isnan(number):
            raise EvaluationError(
                "evaluating_func returned NaN; the score must be a number that can be compared"
            )
        return number
    raise EvaluationError(
        f"evaluating_func returned {_brief(value)}; it must return a number, (number, dict), or a mapping "
        "with 'default'"
    )


def _brief(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
