"""`Trial`: one model, and what to do with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from .tasks import train_and_evaluate

_Limit = Annotated[StrictInt, Field(ge=0)]


class Trial(BaseModel):
    """One model to bind an evaluator to, and the task to do with the two.

    Attributes:
        model: A `torch.nn.Module`, of which the trial gets a copy, or a callable without arguments
            that the worker calls for one (`functools.partial` holds arguments).
        task: Called with the `Binding`, and with `max_steps`, `max_epochs` and `timeout` where it
            has parameters of these names. It returns an `Evaluation`, a number (the score), a
            score with a dictionary, or any other value.
        max_steps: The most optimizer steps.
        max_epochs: The most epochs.
        name: Tells the trial from the others of its run, and seeds it.
        rename: How the model's parameters are called instead; see `bind`.
        missing: What happens where the model lacks parameters; see `bind`.
        timeout: Seconds after which the trial's worker is killed.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    model: Any
    task: Callable[..., Any] = train_and_evaluate
    max_steps: _Limit | None = None
    max_epochs: _Limit | None = None
    name: Annotated[StrictStr, Field(min_length=1)] | None = None
    rename: Any = None
    missing: Literal["raise", "ignore"] = "raise"
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @field_validator("model")
    @classmethod
    def _model_can_be_had(cls, value: Any) -> Any:
        if isinstance(value, torch.nn.Module):
            return value
        if not callable(value):
            raise ValueError(
                f"a model is a torch.nn.Module or a callable without arguments that returns one, "
                f"and this is of type {type(value).__name__}"
            )
        problem = _refusal(value)
        if problem is not None:
            raise ValueError(
                f"{_name_of(value)} is called without arguments in the worker, and has a "
                f"{problem}. Hold its arguments with functools.partial({_name_of(value)}, ...)"
            )
        return value

    @model_validator(mode="after")
    def _task_fits_its_call(self) -> Self:
        given = {"max_steps": self.max_steps, "max_epochs": self.max_epochs}
        lost = [name for name, value in given.items() if value is not None and not self._names(name)]
        if lost:
            raise ValueError(
                f"{' and '.join(lost)} cannot be passed on: {_name_of(self.task)} has no parameter "
                "of that name. Add it to the task, or leave the limit out of the trial"
            )
        arguments = self.arguments(self.timeout)
        problem = _refusal(self.task, None, **arguments)
        if problem is not None:
            called = ", ".join(["binding", *(f"{name}=..." for name in arguments)])
            raise ValueError(f"task is called as {_name_of(self.task)}({called}): {problem}")
        return self

    def arguments(self, timeout: float | None) -> dict[str, Any]:
        """What the task is called with, besides the binding: the limits that it has parameters for.

        Args:
            timeout: Seconds that the trial may take, or None.
        """
        limits = {"max_steps": self.max_steps, "max_epochs": self.max_epochs, "timeout": timeout}
        return {
            name: value
            for name, value in limits.items()
            if value is not None and self._names(name, exactly=name == "timeout")
        }

    def _names(self, name: str, *, exactly: bool = False) -> bool:
        """Whether the task has a parameter of this name, or takes any."""
        try:
            parameters = inspect.signature(self.task).parameters.values()
        except (TypeError, ValueError):
            return not exactly
        return any(
            p.name == name
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            else p.kind is p.VAR_KEYWORD and not exactly
            for p in parameters
        )

    def __repr_args__(self) -> Any:
        """Show what was given, and of a module its class only."""
        for name in self.model_fields_set:
            value = getattr(self, name)
            if name == "model" and isinstance(value, torch.nn.Module):
                yield name, type(value)
            else:
                yield name, value


def _refusal(target: Callable[..., Any], *arguments: Any, **named: Any) -> str | None:
    """Why a call with these arguments does not fit, or None where it does or nobody can tell."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*arguments, **named)
    except TypeError as error:
        return str(error)
    return None


def _name_of(target: Any) -> str:
    return getattr(target, "__qualname__", None) or repr(target)
