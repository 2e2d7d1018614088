"""Fresh optimizers and schedulers for a model, as the user's own code would have built them there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Module

from ..evaluator_schema.build import build
from ..evaluator_schema.construction import Construction, holes_in
from ..evaluator_schema.errors import BindError
from ..evaluator_schema.evaluator import Evaluator
from ..evaluator_schema.values import ModuleHole, ParameterHole, ParametersHole, is_unresolved
from .canonical import canonical
from .matching import Match, Missing, Rename, Report, match

Specs = Construction | tuple[Construction, ...] | None


@dataclass(frozen=True)
class Reinitialised:
    """What was built for a model.

    Attributes:
        optimizers: In the form in which the evaluator has them: one, or a list.
        lr_schedulers: Likewise, or None.
        match: Where the recorded parameters were found.
    """

    optimizers: Any
    lr_schedulers: Any
    match: Match

    @property
    def report(self) -> Report:
        """How the recorded parameters were found."""
        return self.match.report


def reinitialise(
    evaluator: Evaluator,
    model: Module,
    optimizers: Specs,
    lr_schedulers: Specs,
    *,
    rename: Rename | None = None,
    missing: Missing = "raise",
) -> Reinitialised:
    """Build optimizers and schedulers on a model.

    Raises:
        UnresolvedParametersError: The recorded parameters have no names, and `model` is not theirs.
        MissingParametersError: A recorded parameter is not in the model.
        BindError: An optimizer would be empty, or the specs cannot be built on this model.
    """
    evaluator.resolve_names(model)
    if not _is_home(evaluator, model):
        evaluator.require_names()
    specs = [*_listed(optimizers), *_listed(lr_schedulers)]
    matched = match(
        _recorded_names(specs), model, rename=rename, missing=missing, live=evaluator._live
    )
    built = build(specs, _ModelFilling(model, matched))
    fresh = _formed(optimizers, built)
    for index, optimizer in enumerate(fresh if isinstance(fresh, list) else [fresh]):
        if not any(group["params"] for group in optimizer.param_groups):
            raise BindError(f"optimizer {index} ({type(optimizer).__name__}) would have no parameters to train")
    return Reinitialised(fresh, _formed(lr_schedulers, built), matched)


def _is_home(evaluator: Evaluator, model: Module) -> bool:
    """Tell whether every recorded parameter lives in this very model."""
    inside = {id(parameter) for parameter in model.parameters()}
    names = evaluator.parameter_names()
    alive = [evaluator._live[name]() for name in names if name in evaluator._live]
    return len(alive) == len(names) and all(id(tensor) in inside for tensor in alive)


def _recorded_names(specs: list[Construction]) -> list[tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for hole in holes_in(specs):
        if isinstance(hole, ParameterHole):
            names[hole.name] = (hole.name, *hole.aliases)
        else:
            aliases = dict(hole.aliases)
            names.update((name, (name, *aliases.get(name, ()))) for name in hole.names)
    return list(names.values())


class _ModelFilling:
    """A model, seen through the names that were recorded."""

    def __init__(self, model: Module, matched: Match) -> None:
        self._model = model
        self._match = matched
        self._order: dict[str, int] = {}
        for place, name in enumerate(matched.parameters):
            self._order[name] = place

    def parameter(self, hole: ParameterHole) -> torch.Tensor:
        new = self._match.found[hole.name]
        if len(new) != 1:
            raise BindError(
                f"{hole.name!r} was recorded as one parameter and is {len(new)} in this model, where one is needed"
            )
        return self._match.parameters[new[0]]

    def parameters(self, hole: ParametersHole) -> list[Any]:
        names = [new for name in hole.names for new in self._match.found[name]]
        if hole.model_order:
            names.sort(key=self._order.__getitem__)
        tensors = self._match.parameters
        return [(name, tensors[name]) for name in names] if hole.named else [tensors[name] for name in names]

    def module(self, hole: ModuleHole) -> Module:
        if not hole.name:
            return self._model
        modules = dict(self._model.named_modules())
        if hole.name in modules:
            return modules[hole.name]
        wanted = canonical(f"{hole.name}.weight").removesuffix(".weight")
        alike = [m for name, m in modules.items() if canonical(f"{name}.weight").removesuffix(".weight") == wanted]
        if not alike:
            raise BindError(f"the model has no module {hole.name!r}, which a recorded construction takes")
        return alike[0]


def _listed(specs: Specs) -> list[Construction]:
    if specs is None:
        return []
    return list(specs) if isinstance(specs, tuple) else [specs]


def _formed(specs: Specs, built: dict[int, Any]) -> Any:
    """Give what was built in the form in which the specs were given: one, a list, or None."""
    if specs is None:
        return None
    if isinstance(specs, tuple):
        return [built[spec.order] for spec in specs]
    return built[specs.order]
