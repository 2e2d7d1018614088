"""`TransformersEvaluator`: the evaluator of those who train with the Trainer of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

from pydantic import (
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from torch.nn import Module

from .capture.capture import capture
from .capture.naming import Names
from .capture.placing import place_adopted
from .capture.plain import capture_plain
from .changed_arguments import is_changed_by_transformers
from .checking.problems import Problems
from .checking.signatures import locate_arguments
from .construction import LIVE, Construction, Value
from .evaluator import Evaluator
from .specs import LRSchedulers, Optimizers, Spec, check_optimizers, check_schedulers, checked
from .traced_parts import checked_part, note_untraced
from .tracing.recording import ModuleArgument, Record, registry
from .training_arguments import record_of_arguments
from .transformers_kinds import is_of_transformers
from .values import ModuleHole


class TransformersEvaluator(Evaluator):
    """How to train and evaluate similar models, by the Trainer of transformers.

    A training constructs the Trainer anew, from the recorded arguments, around the model that is bound; so
    no state passes from one to the next.

    An optimizer and a scheduler in `optimizers=` are recorded by the names of their parameters, and go on
    through all trainings of a binding. Where they were not given, the Trainer's own `create_optimizer` and
    `create_scheduler` build them for the bound model. Such a scheduler is built anew for each training, as
    each `Trainer.train()` does, for the length of that training: `max_steps` where it is given, otherwise
    the epochs that were asked for, otherwise what the recorded arguments say. A timeout does not count.

    Args:
        trainer: The traced trainer: `trace(Trainer)(model, args, train_dataset=...)`. The model is not kept.
            Traced arguments are constructed anew for each training, `TrainingArguments` and callbacks are
            copied, data sets are shared.
        dummy_input: An example input for those who trace the model's graph; any nesting of tensors. By
            default it is a batch of the data without its labels.

    Raises:
        ValidationError: Anything is wrong with the above; every problem is told at its path.

    Example:
        >>> import torch
        >>> from transformers import Trainer, TrainingArguments
        >>> from rebind import TransformersEvaluator, trace
        >>> class Net(torch.nn.Linear):
        ...     def forward(self, x, labels):
        ...         return {"loss": torch.nn.functional.mse_loss(super().forward(x), labels)}
        >>> args = trace(TrainingArguments)("runs", num_train_epochs=1, report_to="none", use_cpu=True)
        >>> TransformersEvaluator(trace(Trainer)(Net(2, 1), args))
        TransformersEvaluator
        └── trainer: Trainer(model=the model, args=TrainingArguments below)
            └── TrainingArguments('runs', num_train_epochs=1, report_to='none', use_cpu=True)
    """

    trainer: Spec
    dummy_input: Value = None
    optimizers: Optimizers = None
    lr_schedulers: LRSchedulers = None

    def __init__(self, trainer: Any, dummy_input: Any = None) -> None:
        fields = {"trainer": trainer, "dummy_input": dummy_input}
        self.__pydantic_validator__.validate_python(fields, self_instance=self, context={LIVE: True})

    # With this mark, `model_validate` fills the fields itself and does not come through `__init__`.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pydantic's own mark

    @model_validator(mode="wrap")
    @classmethod
    def _capture(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        fields = dict(data)
        problems = Problems()
        note_untraced("trainer", fields.get("trainer"), _is_trainer, problems)
        names = None
        record = registry.get(fields.get("trainer"))
        if record is not None and not problems:
            captured, names = _captured(record)
            fields.update(captured)
        try:
            evaluator = handler(fields)
        except ValidationError as error:
            problems.include((), error)
        problems.raise_if_any(cls.__name__)
        if names is not None:
            evaluator._live = names.live
        return evaluator

    @field_validator("trainer", mode="after")
    @classmethod
    def _check_trainer(cls, value: Any) -> Any:
        value = checked_part("trainer", value, "Trainer", _is_trainer, "trace(Trainer)(model, args, ...)")
        if not isinstance(value.target, type):
            raise ValueError(
                f"trainer must be constructed by a class, and {value.target!r:.80} is none: the arguments of "
                "a Trainer are what is recorded, so write trace(Trainer)(...) inside of that function"
            )
        return _by_name(value)

    @field_validator("dummy_input", mode="after")
    @classmethod
    def _check_dummy_input(cls, value: Any) -> Any:
        return checked("dummy_input", value, None)

    @field_validator("optimizers", mode="after")
    @classmethod
    def _check_optimizers(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return None
        if isinstance(value, tuple):
            raise ValueError(f"a Trainer has one optimizer, and here is a list of {len(value)}")
        trainer = info.data.get("trainer")
        if trainer is not None and trainer.kwargs.get("optimizer_cls_and_kwargs") is not None:
            raise ValueError(
                "a Trainer takes either optimizers= or optimizer_cls_and_kwargs=; both of them were given"
            )
        return check_optimizers(value)

    @field_validator("lr_schedulers", mode="after")
    @classmethod
    def _check_schedulers(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return None
        if isinstance(value, tuple):
            raise ValueError(f"a Trainer has one scheduler, and here is a list of {len(value)}")
        if "optimizers" in info.data and info.data["optimizers"] is None:
            raise ValueError(
                "the Trainer has a scheduler and not the optimizer that it drives; give both: "
                "optimizers=(optimizer, scheduler)"
            )
        return check_schedulers(value, info.data.get("optimizers"))

    model_config: ClassVar[ConfigDict] = ConfigDict(validate_default=True)


def _is_trainer(kind: Any) -> bool:
    return is_of_transformers(kind, "Trainer")


def _captured(record: Record) -> tuple[dict[str, Any], Names | None]:
    """Turn the record of a Trainer into fields, and give the names of its optimizer's parameters."""
    given = _named(record.target, record.args, record.kwargs)
    if given is None:
        given = dict(record.kwargs)
    recorded = given.pop("model", None)
    # What a model is made by has no say: the bound model takes its place.
    given.pop("model_init", None)
    optimizer, scheduler = [*map(_live, _pair(given.pop("optimizers", None)))]
    if is_changed_by_transformers(given.get("args")):
        given["args"] = record_of_arguments(given["args"]) or given["args"]
    (trainer,) = capture_plain([replace(record, args=(), kwargs=given)], _is_copied)
    if isinstance(trainer, Construction):
        trainer = trainer.model_copy(update={"kwargs": {"model": ModuleHole(), **trainer.kwargs}})
    fields: dict[str, Any] = {"trainer": trainer}
    if optimizer is None and scheduler is None:
        return fields, None
    model = recorded.live() if isinstance(recorded, ModuleArgument) else None
    optimizers, schedulers, names = capture(optimizer, scheduler, model)
    fields["optimizers"], fields["lr_schedulers"] = place_adopted(optimizers, schedulers)
    return fields, names


def _by_name(trainer: Construction) -> Construction:
    """Give the construction of a Trainer with all of its arguments by name, and the model's place a hole."""
    given = _named(trainer.target, trainer.args, trainer.kwargs)
    if given is None:
        raise ValueError("pass the arguments of the Trainer by name, so that it can be told what they are")
    model = given.pop("model", ModuleHole())
    if model != ModuleHole():
        raise ValueError(f"the Trainer's model is the one that is bound, so {type(model).__name__} cannot be")
    for name, cure in _ELSEWHERE.items():
        if given.get(name) is not None:
            raise ValueError(f"the Trainer's {name} {cure}")
    return trainer.model_copy(update={"args": (), "kwargs": {"model": model, **given}})


_ELSEWHERE = {
    "optimizers": "stand in the evaluator's own fields, optimizers and lr_schedulers",
    "model_init": "makes a model, and here the model is the one that is bound; leave it out",
}


def _named(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the arguments of a Trainer by name; None where a class of the user's own does not tell one."""
    names: dict[Any, str] = {}
    # `def __init__(self, *args, **kwargs)` hands them on to the Trainer that it derives from.
    bases = [base for base in getattr(target, "__mro__", ()) if is_of_transformers(base, "Trainer")]
    for taker in (target, *bases):
        for (_, place), parameter, _ in locate_arguments(taker, args, {}):
            if parameter.kind is not parameter.VAR_POSITIONAL:
                names.setdefault(place, parameter.name)
    if len(names) < len(args):
        return None
    return {**{names[place]: value for place, value in enumerate(args)}, **kwargs}


def _pair(value: Any) -> tuple[Any, Any]:
    """Read what was given for `optimizers`; the Trainer has unpacked it."""
    first, second = (None, None) if value is None else value
    return first, second


def _live(value: Any) -> Any:
    return value.result() if isinstance(value, Record) else value


def _is_copied(value: Any) -> bool:
    """Tell whether an argument is copied for the evaluator; the others are shared with the user's code."""
    return is_changed_by_transformers(value) or isinstance(value, Module)
