"""`TorchEvaluator`: the evaluator of those who write their training loop themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, cast

from pydantic import (
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    PlainSerializer,
    SerializationInfo,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from torch.nn import Module

from .capture.capture import capture, is_live
from .capture.placing import place_adopted
from .capture.siblings import unplaceable
from .checking import checks
from .checking.problems import Invalid, Problems
from .checking.shippability import LIMIT, explain
from .checking.signatures import Location
from .construction import LIVE, Construction, Importable, Value, constructions_in, values_of
from .evaluator import Evaluator
from .values import ModuleHole, ParameterHole, ParametersHole, Ref


def _constructions(value: Any, info: ValidationInfo) -> Any:
    """Validate one construction or a list of them, and keep which of the two it was."""
    if value is None:
        return None
    problems = Problems()
    many = isinstance(value, list | tuple)
    checked = [
        _construction(item, (index,) if many else (), info, problems)
        for index, item in enumerate(value if many else [value])
    ]
    problems.raise_if_any("constructions")
    return tuple(checked) if many else checked[0]


def _construction(item: Any, at: Location, info: ValidationInfo, problems: Problems) -> Any:
    try:
        if isinstance(item, Invalid):
            item.problems.raise_if_any("captured")
        context = info.context
        if isinstance(item, dict) and context and "model" in context:  # written by hand among live objects
            context = {**context, LIVE: False}
        return Construction.model_validate(item, context=context)
    except ValidationError as error:
        problems.include(at, error)
    return None


def _written(value: Any, info: SerializationInfo) -> Any:
    """Write a construction as an object with its fields; in Python, one level deep."""
    if value is None:
        return None
    options: dict[str, Any] = {"exclude_defaults": True, "context": info.context}
    if info.mode == "json":
        options["mode"] = "json"
    if isinstance(value, tuple):
        return [item.model_dump(**options) for item in value]
    return value.model_dump(**options)


_CONSTRUCTION = {
    "type": "object",
    "properties": {
        "target": {"type": "string", "description": "An import path, 'module:qualname'"},
        "args": {"type": "array"},
        "kwargs": {"type": "object"},
        "order": {"type": "integer", "minimum": 0},
        "changes": {"type": "array"},
        "location": {"type": "string"},
    },
    "required": ["target"],
    "additionalProperties": False,
}
_ONE_OR_MANY: list[dict[str, Any]] = [
    _CONSTRUCTION,
    {"type": "array", "items": _CONSTRUCTION, "minItems": 1},
]

Optimizers = Annotated[
    Any,
    BeforeValidator(_constructions),
    PlainSerializer(_written),
    WithJsonSchema({"anyOf": _ONE_OR_MANY}),
]
LRSchedulers = Annotated[
    Any,
    BeforeValidator(_constructions),
    PlainSerializer(_written),
    WithJsonSchema({"anyOf": [*_ONE_OR_MANY, {"type": "null"}]}),
]


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
        return _checked("training_func", function, checks.training_problem(function))

    @field_validator("evaluating_func", mode="after")
    @classmethod
    def _check_evaluating(cls, function: Any) -> Any:
        if function is None:
            return None
        return _checked("evaluating_func", function, checks.evaluating_problem(function))

    @field_validator("criterion", mode="after")
    @classmethod
    def _check_criterion(cls, function: Any) -> Any:
        if function is None:
            return None
        problem = checks.criterion_problem(function, "criterion", ("input", "target"))
        return _checked("criterion", function, problem)

    @field_validator("training_step", mode="after")
    @classmethod
    def _check_training_step(cls, function: Any) -> Any:
        if function is None:
            return None
        problem = checks.criterion_problem(function, "training_step", ("batch", "model"))
        return _checked("training_step", function, problem)

    @field_validator("dummy_input", mode="after")
    @classmethod
    def _check_dummy_input(cls, value: Any) -> Any:
        return _checked("dummy_input", value, None)

    @field_validator("optimizers", mode="after")
    @classmethod
    def _check_optimizers(cls, value: Any) -> Any:
        problems = Problems()
        if value is None or value == ():
            problems.add(
                (),
                "at least one optimizer is needed: trace(SGD)(model.parameters(), lr=...)",
                value,
            )
        for at, construction in constructions_in(value):
            _check_parameters(at, construction, problems)
        _check_shipping("optimizers", value, problems)
        problems.raise_if_any("optimizers")
        return value

    @field_validator("lr_schedulers", mode="after")
    @classmethod
    def _check_schedulers(cls, value: Any, info: ValidationInfo) -> Any:
        problems = Problems()
        if info.data.get("optimizers") is not None:
            _check_references(value, info.data["optimizers"], problems)
        _check_shipping("lr_schedulers", value, problems)
        problems.raise_if_any("lr_schedulers")
        return value

    @field_validator("training_step", mode="after")
    @classmethod
    def _check_loss(cls, function: Any, info: ValidationInfo) -> Any:
        if "criterion" in info.data and (function is None) == (info.data["criterion"] is None):
            raise ValueError(
                "pass either criterion=, a function of (input, target), or training_step=, a function of "
                f"(batch, model); {'none' if function is None else 'both'} of them was given"
            )
        return function

    model_config = ConfigDict(validate_default=True)


def _placeable(live: Any, captured: Any) -> Any:
    """Give captured schedulers, or what is wrong with the place of an untraced one among them."""
    problems = Problems()
    for error in unplaceable(live if isinstance(live, list | tuple) else (live,)):
        problems.add((), str(error), None, "not_adoptable")
    return Invalid(problems) if problems else captured


def _checked(field: str, value: Any, problem: str | None) -> Any:
    """Raise what is wrong with a callable, and everything that keeps it from being shipped."""
    problems = Problems()
    if problem is not None:
        problems.add((), problem, value, "callable")
    for sentence in explain(value, field, limit=LIMIT):
        problems.add((), sentence, value, "not_serializable")
    problems.raise_if_any(field)
    return value


def _check_shipping(field: str, value: Any, problems: Problems) -> None:
    for at, construction in constructions_in(value):
        for path, leaf in values_of(construction):
            if isinstance(leaf, Construction | ParameterHole | ParametersHole | Ref):
                continue
            where = ".".join(map(str, (field, *at, *path)))
            for sentence in explain(leaf, where, limit=LIMIT):
                problems.add((*at, *path), sentence, leaf, "not_serializable")


def _check_parameters(at: Location, construction: Construction, problems: Problems) -> None:
    """Check that an optimizer has parameters, and each of them once."""
    seen: set[str] = set()
    for path, leaf in values_of(construction):
        names = leaf.names if isinstance(leaf, ParametersHole) else ()
        names = (leaf.name,) if isinstance(leaf, ParameterHole) else names
        replaced = len(path) > 2 and path[0] == "changes" and construction.changes[cast("int", path[1])]
        for name in names:
            if name in seen and not replaced:
                problems.add((*at, *path), f"parameter {name!r} is in more than one place", name, "duplicate")
            seen.add(name)


def _check_references(schedulers: Any, optimizers: Any, problems: Problems) -> None:
    """Check that every scheduler leads to one of the optimizers."""
    driven = {found.order for _, found in constructions_in(optimizers)}
    inside = {found.order for _, found in constructions_in(schedulers)}
    for at, construction in constructions_in(schedulers):
        references = [(path, leaf) for path, leaf in values_of(construction) if isinstance(leaf, Ref)]
        for path, leaf in references:
            if leaf.order not in driven | inside:
                problems.add(
                    (*at, *path),
                    f"this refers to construction {leaf.order}, which is neither an optimizer nor a "
                    f"scheduler of this evaluator; known are {sorted(driven | inside)}",
                    leaf.order,
                    "foreign_optimizer",
                )
            elif leaf.order >= construction.order:
                problems.add((*at, *path), "this refers to something that is built later", leaf.order)
        averages = any(isinstance(leaf, ModuleHole) for _, leaf in values_of(construction))
        if averages:  # an AveragedModel follows the model, and not an optimizer
            continue
        if not references and not list(constructions_in([construction.args, construction.kwargs])):
            problems.add(at, "this scheduler leads to no optimizer", None, "foreign_optimizer")
