"""The base of all evaluators: a frozen value that can be compared, shown, and taken apart for shipping."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import PrivateAttr

from .capture.naming import Names, holders_of
from .checking.signatures import name_of
from .comparison import differences, same
from .construction import LIVE, Construction, Frozen, all_constructions, holes_in, replace_leaves
from .declarative import codec
from .declarative.importing import import_path
from .declarative.migrations import migrated
from .display import html_tree, tree
from .errors import UnresolvedParametersError
from .values import ParameterHole, ParametersHole, is_unresolved, map_container


class Evaluator(Frozen):
    """How a family of similar models is trained and evaluated, as one value.

    Evaluators are frozen, equal by content, and hold no tensor of any model.
    """

    _kinds: ClassVar[dict[str, type[Evaluator]]] = {}
    # The recorded parameters by name, while they live: they decide where a model renamed its own.
    _live: dict[str, weakref.ref[torch.Tensor]] = PrivateAttr(default_factory=dict)
    # The module whose `parameters()` told the names, where nobody said that it is the whole model.
    _guessed_root: weakref.ref[torch.nn.Module] | None = PrivateAttr(default=None)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Enter the kind under its name, by the same door for ours and for others'."""
        super().__pydantic_init_subclass__(**kwargs)
        Evaluator._kinds[cls.__name__] = cls

    @staticmethod
    def kinds() -> dict[str, type[Evaluator]]:
        """Give all kinds of evaluators by name."""
        return dict(Evaluator._kinds)

    def fields(self) -> dict[str, Any]:
        """Give the fields by name, as they are in memory."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    @classmethod
    def from_fields(
        cls, fields: Mapping[str, Any], *, context: dict[str, Any] | None = None, checked: bool = False
    ) -> Self:
        """Create an evaluator from what `fields` gave, with every check run again.

        Args:
            fields: The fields by name.
            context: What pydantic hands to the validators.
            checked: These very fields came through here before, in this process: they are taken as they
                are, unless a migration has something to change in them.

        Raises:
            ValidationError: The fields do not make an evaluator.
        """
        if checked and all(map(_is_current, fields.values())):
            taken: Self = cls.model_construct(set(fields), **fields)  # type: ignore[assignment]
            return taken
        reopened = {name: _reopened(value) for name, value in fields.items()}
        return cls.model_validate(reopened, context={**(context or {}), LIVE: True})

    def with_leaves(self, replace: Callable[[Any], Any]) -> Self:
        """Give a copy with `replace` applied to every leaf of every field, and nothing checked again.

        Args:
            replace: From a leaf (anything that is no container and no construction) to what stands in
                its place.
        """
        fields = {name: replace_leaves(value, replace) for name, value in self.fields().items()}
        copied: Self = type(self).model_construct(set(self.model_fields_set), **fields)  # type: ignore[assignment]
        return copied

    def code_fields(self) -> list[str]:
        """Name the fields that only pickle can carry; none means that JSON can carry the evaluator."""
        return [name for name, value in self.fields().items() if not codec.is_declarative(value)]

    def summary(self) -> dict[str, Any]:
        """Describe the evaluator in JSON, for people who look into a file without opening it."""
        return {name: _summary(value) for name, value in self.fields().items() if value is not None}

    def parameter_names(self) -> list[str]:
        """List the recorded parameters by name, each once, in the order of recording."""
        names: dict[str, None] = {}
        for hole in self._holes():
            names.update(dict.fromkeys(hole.names if isinstance(hole, ParametersHole) else (hole.name,)))
        return list(names)

    def require_names(self) -> None:
        """Make sure that every recorded parameter has a name that means something elsewhere.

        Raises:
            UnresolvedParametersError: One has none. Pass `model=` when the evaluator is created.
        """
        nameless = sum(map(is_unresolved, self.parameter_names()))
        if nameless:
            raise UnresolvedParametersError(
                f"{nameless} of {len(self.parameter_names())} recorded parameters have no names, so they "
                "cannot be found in another model: create the evaluator with "
                f"{type(self).__name__}(..., model=model), "
                "or build the optimizer from model.named_parameters()"
            )
        root = None if self._guessed_root is None else self._guessed_root()
        if root is None:
            return
        holders = [type(holder).__name__ for holder in holders_of(root)]
        if holders:
            raise UnresolvedParametersError(
                f"the parameters come from the `parameters()` of a {type(root).__name__} that is itself part "
                f"of a {holders[0]}, so it is unclear from where their names count: create the evaluator "
                f"with {type(self).__name__}(..., model=...) and pass the model that will be bound"
            )
        self._guessed_root = None

    def resolve_names(self, model: torch.nn.Module) -> None:
        """Learn the names of the recorded parameters from the model that they live in.

        Does nothing unless some have no name and all of those live in `model`. This is the one way in
        which an evaluator changes: what it stands for stays the same.

        Args:
            model: The model that the optimizers were built for.
        """
        nameless = [name for name in self.parameter_names() if is_unresolved(name)]
        if not nameless:
            return
        table = Names(model, given=True)
        found: dict[str, tuple[str, ...]] = {}
        for name in nameless:
            tensor = self._live[name]() if name in self._live else None
            if tensor is None or not table.knows(tensor):
                return
            found[name] = table.of(tensor)
        self._guessed_root = None
        self._live = {**{k: v for k, v in self._live.items() if k not in found}, **table.live}
        for field, value in self.fields().items():
            self.__dict__[field] = replace_leaves(value, lambda leaf: _renamed(leaf, found, table))

    def _holes(self) -> list[ParameterHole | ParametersHole]:
        return [hole for value in self.fields().values() for hole in holes_in(value)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Evaluator):
            return NotImplemented
        return type(self) is type(other) and same(self.fields(), other.fields())

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.parameter_names())))

    def __repr__(self) -> str:
        return tree(type(self).__name__, self.fields())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_tree(type(self).__name__, self.fields())

    def __reduce__(self) -> tuple[Any, ...]:
        self.require_names()
        return _revive, (type(self), self.fields())


def diff(first: Evaluator, second: Evaluator) -> list[tuple[str, Any, Any]]:
    """List the paths at which two evaluators differ, with what each has there.

    Args:
        first: An evaluator.
        second: Another one. Of two kinds, only `kind` differs.

    Example:
        >>> import torch
        >>> from rebind import TorchEvaluator, trace
        >>> def train(model, optimizers, criterion): ...
        >>> def make(lr):
        ...     model = torch.nn.Linear(2, 1)
        ...     optimizer = trace(torch.optim.SGD)(model.parameters(), lr=lr)
        ...     return TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss)
        >>> diff(make(0.1), make(0.2))
        [('optimizers.kwargs.lr', 0.1, 0.2)]
    """
    if type(first) is not type(second):
        return [("kind", type(first).__name__, type(second).__name__)]
    return list(differences(first.fields(), second.fields()))


def _reopened(value: Any) -> Any:
    """Take constructions apart, so that they are migrated and checked again when they are validated."""
    if isinstance(value, tuple) and value and all(isinstance(item, Construction) for item in value):
        return [_spec_of(item) for item in value]
    return _spec_of(value) if isinstance(value, Construction) else value


def _is_current(value: Any) -> bool:
    """Tell whether no migration has anything to change in a field."""
    for construction in all_constructions(value):
        path = import_path(construction.target)
        spec = {"target": path, "args": list(construction.args), "kwargs": dict(construction.kwargs)}
        if not same(migrated(spec), spec):
            return False
    return True


def _spec_of(construction: Construction) -> dict[str, Any]:
    """Write a construction as one stands in JSON, with its values as they are."""

    def inner(value: Any) -> Any:
        if isinstance(value, Construction):
            return Construction.model_validate(_spec_of(value), context={LIVE: True})
        return map_container(value, inner)

    spec = {name: getattr(construction, name) for name in type(construction).model_fields}
    path = import_path(construction.target)
    spec.update(target=path, args=inner(list(construction.args)), kwargs=inner(construction.kwargs))
    spec = migrated(spec)
    return {**spec, "target": construction.target} if spec["target"] == path else spec


def _revive(kind: type[Evaluator], fields: dict[str, Any]) -> Evaluator:
    return kind.from_fields(fields)


def _renamed(leaf: Any, found: dict[str, tuple[str, ...]], table: Names) -> Any:
    if isinstance(leaf, ParameterHole) and leaf.name in found:
        return ParameterHole(found[leaf.name][0], found[leaf.name][1:])
    if isinstance(leaf, ParametersHole) and any(name in found for name in leaf.names):
        names = tuple(found.get(name, (name,))[0] for name in leaf.names)
        learned = tuple((n[0], n[1:]) for n in map(found.get, leaf.names) if n and len(n) > 1)
        return ParametersHole(names, leaf.named, table.in_order(names), (*leaf.aliases, *learned))
    return leaf


def _summary(value: Any) -> Any:
    if isinstance(value, Construction):
        held = holes_in(value)
        count = sum(len(hole.names) if isinstance(hole, ParametersHole) else 1 for hole in held)
        return {"target": import_path(value.target) or name_of(value.target), "parameters": count}
    if isinstance(value, tuple) and value and all(isinstance(v, Construction) for v in value):
        return [_summary(item) for item in value]
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return import_path(value) or (name_of(value) if callable(value) else type(value).__name__)
