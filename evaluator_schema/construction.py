"""A construction as a value: what to call, with what, and when among its siblings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar

import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .checking.annotations import mismatch
from .checking.problems import Problems
from .checking.signatures import Location, locate_arguments, misfits, name_of
from .declarative import codec
from .declarative.importing import import_path, is_under, resolve, unwrapped
from .declarative.migrations import migrated
from .errors import ImportPathError
from .lightning_kinds import PARTS, package_of
from .transformers_kinds import PARTS as TRANSFORMERS_PARTS
from .transformers_kinds import is_of_transformers
from .values import (
    InPlace,
    ModuleHole,
    ParameterHole,
    ParametersHole,
    Ref,
    Shared,
    is_container,
    leaf_values,
    leaves,
    map_container,
    plain,
)

# In the context of a validation: values are live objects, and no JSON, whatever they look like.
LIVE = "live"


def _decoded(value: Any, info: ValidationInfo) -> Any:
    if info.context and info.context.get(LIVE):
        return value
    try:
        return codec.decode(value, info.context or {})
    except ImportPathError as error:
        raise ValueError(str(error)) from None


def _encoded(value: Any, info: SerializationInfo) -> Any:
    return codec.encode(value, {**(info.context or {}), "keep": info.mode != "json"})


def _imported(value: Any, info: ValidationInfo) -> Any:
    """Take a callable, or import the one that a path names."""
    if isinstance(value, str):
        try:
            return resolve(value, (info.context or {}).get("allow", ()))
        except ImportPathError as error:
            raise ValueError(str(error)) from None
    return _decoded(unwrapped(value), info)


def _imported_target(value: Any, info: ValidationInfo) -> Any:
    """Take what a construction calls, or import it, if it may be called on the word of a path alone.

    The default allow-list opens torch, and torch has functions that run files (`torch.load`,
    `torch.hub.load`). A path may therefore lead to optimizers, schedulers, modules and the parts of a
    trainer of Lightning or transformers only, unless the caller allowed the target's module by name.
    """
    target = _imported(value, info)
    if not isinstance(value, str) or (
        isinstance(target, type) and issubclass(target, Optimizer | LRScheduler | torch.nn.Module)
    ):
        return target
    # Of Lightning or transformers themselves, or of a module that was allowed.
    if package_of(target, *PARTS) is not None or is_of_transformers(target, *TRANSFORMERS_PARTS):
        return target
    module = getattr(target, "__module__", None) or value.partition(":")[0]
    allow = (info.context or {}).get("allow", ())
    if is_under(module, allow):
        return target
    raise ValueError(
        f"{value!r} is no optimizer, scheduler or module; to have it called, allow its module by "
        f"name: context={{'allow': [{module!r}]}}"
    )


def _exported(value: Any, info: SerializationInfo) -> Any:
    """Give the import path of a callable; in Python, one that has none stands for itself."""
    path = import_path(value)
    if path is not None:
        return path
    return codec.encode(value, info.context or {}) if info.mode == "json" else value


# Anything that may be recorded; see `codec` for what it looks like in JSON.
Value = Annotated[
    Any,
    BeforeValidator(_decoded),
    PlainSerializer(_encoded),
    WithJsonSchema({"description": "A value; what JSON lacks is written as {'$tag': ...}"}),
]
_PATH_SCHEMA = WithJsonSchema({"type": "string", "description": "An import path, 'module:qualname'"})
# A callable, in JSON its import path `module:qualname`.
Importable = Annotated[
    Any,
    BeforeValidator(_imported),
    PlainSerializer(_exported),
    _PATH_SCHEMA,
]
Target = Annotated[
    Any,
    BeforeValidator(_imported_target),
    PlainSerializer(_exported),
    _PATH_SCHEMA,
]


class Frozen(BaseModel):
    """What all of our models have in common: they are values, and take no unknown fields."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, ser_json_inf_nan="strings"
    )


class GroupChange(Frozen):
    """A change to an optimizer's parameter groups after its construction.

    Attributes:
        order: When it is done, among the constructions of the evaluator.
        group: The group's index; one past the last adds a group.
        options: The options that change. A new group's include `params`.
    """

    order: int = Field(ge=0)
    group: int = Field(ge=0)
    options: dict[str, Value]


class Construction(Frozen):
    """How one object is constructed: `target(*args, **kwargs)`, with holes where the model goes.

    Attributes:
        target: What is called.
        args: Positional arguments, as they were given.
        kwargs: Keyword arguments, as they were given; defaults are left to the target.
        order: When it is called, among the constructions of the evaluator.
        changes: What was done to its parameter groups later, where it is an optimizer.
        location: The `file:line` of the traced call, for people.
    """

    target: Target
    args: tuple[Value, ...] = ()
    kwargs: dict[str, Value] = {}
    order: int = Field(default=0, ge=0)
    changes: tuple[GroupChange, ...] = ()
    location: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _migrate(cls, data: Any) -> Any:
        """Bring a written construction, whose target is an import path, up to the versions installed here."""
        if isinstance(data, dict) and isinstance(data.get("target"), str):
            return migrated(data)
        return data

    @model_validator(mode="after")
    def _check_call(self) -> Construction:
        problems = Problems()
        if not callable(self.target):
            problems.add(
                ("target",),
                f"a construction needs something to call, not {self.target!r}",
                self.target,
            )
            problems.raise_if_any("Construction")
        for location, message in misfits(self.target, self.args, self.kwargs):
            problems.add(location, message, self._at(location))
        if not problems:
            self._check_types(problems)
        problems.raise_if_any(name_of(self.target))
        return self

    def _check_types(self, problems: Problems) -> None:
        for location, parameter, recorded in locate_arguments(self.target, self.args, self.kwargs):
            value = _as_given(recorded)
            if parameter.name == "params" or any(map(_is_hole, leaf_values(value))):
                continue
            message = mismatch(self.target, parameter, value)
            if message:
                problems.add(location, f"{name_of(self.target)}: {message}", value)

    def _at(self, location: Location) -> Any:
        found: Any = None
        if len(location) == 2:
            found = getattr(self, str(location[0]))
            found = found[location[1]] if location[1] in found or location[0] == "args" else None
        return found


def _as_given(value: Any) -> Any:
    """Give a recorded value without the marks that tell how it is handed over."""
    return map_container(plain(value), _as_given)


def _is_hole(value: Any) -> bool:
    return isinstance(value, Ref | ParameterHole | ParametersHole | ModuleHole | Construction)


def _encode_construction(value: Construction, context: codec.Context) -> Any:
    target: Any = import_path(value.target)
    if target is None:
        target = value.target if context.get("keep") else codec.encode(value.target, context)
    written: dict[str, Any] = {"target": target}
    if value.args:
        written["args"] = [codec.encode(item, context) for item in value.args]
    if value.kwargs:
        written["kwargs"] = {key: codec.encode(item, context) for key, item in value.kwargs.items()}
    if value.order:
        written["order"] = value.order
    if value.changes:
        written["changes"] = [
            {**vars(change), "options": {k: codec.encode(v, context) for k, v in change.options.items()}}
            for change in value.changes
        ]
    if value.location is not None:
        written["location"] = value.location
    return written


def _decode_construction(held: Any, context: codec.Context) -> Construction:
    return Construction.model_validate(held, context=dict(context))


codec.register("$construction", Construction, _encode_construction, _decode_construction)
codec.register(
    "$shared",
    Shared,
    lambda v, context: [v.number, codec.encode(v.value, context)],
    lambda held, context: Shared(int(held[0]), codec.decode(held[1], context)),
)
codec.register(
    "$in_place",
    InPlace,
    lambda v, context: codec.encode(v.value, context),
    lambda held, context: InPlace(codec.decode(held, context)),
)


def constructions_in(value: Any) -> Iterator[tuple[Location, Construction]]:
    """Walk all constructions in a value, the outer before the inner, each with its path."""
    for path, leaf in leaves(value):
        if isinstance(leaf, Construction):
            yield path, leaf
            for inner, found in constructions_in(leaf.args):
                yield (*path, "args", *inner), found
            for inner, found in constructions_in(leaf.kwargs):
                yield (*path, "kwargs", *inner), found


def all_constructions(value: Any) -> list[Construction]:
    """List what `constructions_in` walks, without the paths, which cost more than everything else."""
    found: list[Construction] = []
    for leaf in leaf_values(value):
        if isinstance(leaf, Construction):
            found.append(leaf)
            found.extend(all_constructions((leaf.args, leaf.kwargs)))
    return found


def values_of(construction: Construction) -> list[tuple[Location, Any]]:
    """List the leaves of a construction's own arguments and changes, each with its path."""
    return [
        *((("args", *path), leaf) for path, leaf in leaves(construction.args)),
        *((("kwargs", *path), leaf) for path, leaf in leaves(construction.kwargs)),
        *(
            (("changes", index, *path), leaf)
            for index, change in enumerate(construction.changes)
            for path, leaf in leaves(change.options)
        ),
    ]


_HOLES = (ParameterHole, ParametersHole)


def holes_in(value: Any) -> list[ParameterHole | ParametersHole]:
    """List the holes for parameters in a value, in the order in which they stand."""
    found: list[ParameterHole | ParametersHole] = []
    for leaf in leaf_values(value):
        if isinstance(leaf, Construction):
            arguments = leaf_values((leaf.args, leaf.kwargs))
            options = leaf_values([change.options for change in leaf.changes])
            found.extend(held for held in (*arguments, *options) if isinstance(held, _HOLES))
            if inner := [held for held in arguments if isinstance(held, Construction)]:
                found.extend(holes_in(inner))
    return found


def replace_leaves(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Copy a value with `replace` applied to every leaf, also inside its constructions."""
    if isinstance(value, Construction):
        return value.model_copy(
            update={
                "args": replace_leaves(value.args, replace),
                "kwargs": replace_leaves(value.kwargs, replace),
                "changes": tuple(
                    change.model_copy(update={"options": replace_leaves(change.options, replace)})
                    for change in value.changes
                ),
            }
        )
    if is_container(value):
        return map_container(value, lambda item: replace_leaves(item, replace))
    return replace(value)
