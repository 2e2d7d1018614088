"""`TorchEvaluator`: the evaluator of those who write their training loop themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationInfo, field_validator, model_validator
from torch.nn import Module

from .capture.capture import capture, is_live
from .capture.placing import place_adopted
from .capture.siblings import unplaceable
from .checking import checks
from .checking.problems import Invalid, Problems
from .construction import LIVE, Importable, Value
from .evaluator import Evaluator
from .specs import LRSchedulers, Optimizers, check_optimizers, check_schedulers, checked


class TorchEvaluator(Evaluator):
    """How to train and evaluate similar models, with a training loop of the user's own.

    Args:
        training_func: `training_func(model, optimizers, criterion)`, which also gets each of
            `lr_schedulers`, `max_steps` and `max_epochs` that it names.
        optimizers: One traced optimizer, or a list; `training_func` gets the same form back.
        criterion: `criterion(input, target)`, which gives the loss.
        lr_schedulers: One traced learning-rate scheduler, or a list, or None.
        dummy_input: An example input for those who trace the model's graph; any nesting of tensors.
        evaluating_func: `evaluating_func(model)`, which gives a score (higher is better), or a score
            and a dict of further information.
        training_step: In place of `criterion`: `training_step(batch, model)`, which gives the loss, a
            tuple with the loss first, or a mapping with `loss`.
        model: The model whose parameters are optimized. It is only asked for their names, and not kept.
            Needed where the optimizer was built from a plain list or from several modules' parameters.

    Raises:
        ValidationError: Anything is wrong with the above; every problem is told at its path.

    Example:
        >>> import torch
        >>> from rebind import TorchEvaluator, trace
        >>> def train(model, optimizers, criterion):
        ...     optimizers.zero_grad()
        ...     criterion(model(torch.ones(4, 2)), torch.zeros(4, 1)).backward()
        ...     optimizers.step()
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1)
        >>> TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss)
        TorchEvaluator
        ├── training_func: train
        ├── optimizers: SGD(2 parameters, lr=0.1)
        └── criterion: torch.nn.functional:mse_loss
    """

    training_func: Importable
    optimizers: Optimizers
    criterion: Importable = None
    lr_schedulers: LRSchedulers = None
    dummy_input: Value = None
    evaluating_func: Importable = None
    training_step: Importable = None

    def __init__(  # noqa: PLR0917 - the order is a contract
        self,
        training_func: Callable[..., Any],
        optimizers: Any,
        criterion: Callable[..., Any] | None = None,
        lr_schedulers: Any = None,
        dummy_input: Any = None,
        evaluating_func: Callable[..., Any] | None = None,
        *,
        training_step: Callable[..., Any] | None = None,
        model: Module | None = None,
    ) -> None:
        fields = {
            "training_func": training_func,
            "optimizers": optimizers,
            "criterion": criterion,
            "lr_schedulers": lr_schedulers,
            "dummy_input": dummy_input,
            "evaluating_func": evaluating_func,
            "training_step": training_step,
        }
        self.__pydantic_validator__.validate_python(
            fields, self_instance=self, context={"model": model, LIVE: True}
        )

    # With this mark, `model_validate` fills the fields itself and does not come through `__init__`.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # pydantic's own mark

    @model_validator(mode="wrap")
    @classmethod
    def _capture(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        fields = dict(data)
        model = (info.context or {}).get("model")
        live = fields.get("lr_schedulers")
        if not is_live(fields.get("optimizers")) and not is_live(live):
            return handler(fields)
        optimizers, lr_schedulers, names = capture(fields.get("optimizers"), live, model)
        optimizers, lr_schedulers = place_adopted(optimizers, lr_schedulers)
        fields.update(optimizers=optimizers, lr_schedulers=_placeable(live, lr_schedulers))
        evaluator = handler(fields)
        if names.live:
            evaluator._live = names.live
            evaluator._guessed_root = None if names.given else names.root
        return evaluator

    @field_validator("training_func", mode="after")
    @classmethod
    def _check_training(cls, function: Any) -> Any:
        return checked("training_func", function, checks.training_problem(function))

    @field_validator("evaluating_func", mode="after")
    @classmethod
    def _check_evaluating(cls, function: Any) -> Any:
        if function is None:
            return None
        return checked("evaluating_func", function, checks.evaluating_problem(function))

    @field_validator("criterion", mode="after")
    @classmethod
    def _check_criterion(cls, function: Any) -> Any:
        if function is None:
            return None
        problem = checks.criterion_problem(function, "criterion", ("input", "target"))
        return checked("criterion", function, problem)

    @field_validator("training_step", mode="after")
    @classmethod
    def _check_training_step(cls, function: Any) -> Any:
        if function is None:
            return None
        problem = checks.criterion_problem(function, "training_step", ("batch", "model"))
        return checked("training_step", function, problem)

    @field_validator("dummy_input", mode="after")
    @classmethod
    def _check_dummy_input(cls, value: Any) -> Any:
        return checked("dummy_input", value, None)

    @field_validator("optimizers", mode="after")
    @classmethod
    def _check_optimizers(cls, value: Any) -> Any:
        return check_optimizers(value)

    @field_validator("lr_schedulers", mode="after")
    @classmethod
    def _check_schedulers(cls, value: Any, info: ValidationInfo) -> Any:
        return check_schedulers(value, info.data.get("optimizers"))

    @field_validator("training_step", mode="after")
    @classmethod
    def _check_loss(cls, function: Any, info: ValidationInfo) -> Any:
        if "criterion" in info.data and (function is None) == (info.data["criterion"] is None):
            raise ValueError(
                "pass either criterion=, a function of (input, target), or training_step=, a function of "
                f"(batch, model); {'none' if function is None else 'both'} of them was given"
            )
        return function

    model_config: ClassVar[ConfigDict] = ConfigDict(validate_default=True)


def _placeable(live: Any, captured: Any) -> Any:
    """Give captured schedulers, or what is wrong with the place of an untraced one among them."""
    problems = Problems()
    for error in unplaceable(live if isinstance(live, list | tuple) else (live,)):
        problems.add((), str(error), None, "not_adoptable")
    return Invalid(problems) if problems else captured
