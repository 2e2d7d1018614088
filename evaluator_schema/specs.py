"""Fields of evaluators that hold constructions: read, checked, and written."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import (
    BeforeValidator,
    PlainSerializer,
    SerializationInfo,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)

from .checking.problems import Invalid, Problems
from .checking.shippability import LIMIT, explain
from .checking.signatures import Location
from .construction import LIVE, Construction, all_constructions, constructions_in, values_of
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

Spec = Annotated[
    Any,
    BeforeValidator(_constructions),
    PlainSerializer(_written),
    WithJsonSchema(_CONSTRUCTION),
]


def checked(field: str, value: Any, problem: str | None) -> Any:
    """Raise what is wrong with a callable, and everything that keeps it from being shipped."""
    problems = Problems()
    if problem is not None:
        problems.add((), problem, value, "callable")
    for sentence in explain(value, field, limit=LIMIT):
        problems.add((), sentence, value, "not_serializable")
    problems.raise_if_any(field)
    return value


def check_optimizers(value: Any) -> Any:
    """Check that there is an optimizer, and that each has parameters of its own and can be shipped."""
    problems = Problems()
    if value is None or value == ():
        problems.add(
            (),
            "at least one optimizer is needed: trace(SGD)(model.parameters(), lr=...)",
            value,
        )
    for at, construction in constructions_in(value):
        _check_parameters(at, construction, problems)
    check_shipping("optimizers", value, problems)
    problems.raise_if_any("optimizers")
    return value


def check_schedulers(value: Any, optimizers: Any) -> Any:
    """Check that each scheduler leads to one of the optimizers, if those are known, and can be shipped."""
    problems = Problems()
    if optimizers is not None:
        _check_references(value, optimizers, problems)
    check_shipping("lr_schedulers", value, problems)
    problems.raise_if_any("lr_schedulers")
    return value


def check_shipping(field: str, value: Any, problems: Problems) -> None:
    """Note everything that keeps the constructions in a value from being shipped."""
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
    driven = {found.order for found in all_constructions(optimizers)}
    inside = {found.order for found in all_constructions(schedulers)}
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
        if not references and not all_constructions([construction.args, construction.kwargs]):
            problems.add(at, "this scheduler leads to no optimizer", None, "foreign_optimizer")
