"""Fresh optimizers and schedulers for a model, as the user's own code would have built them there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Module

from ..evaluator_schema.build import build
from ..evaluator_schema.construction import Construction, holes_in
from ..evaluator_schema.errors import BindError, RebindError
from ..evaluator_schema.evaluator import Evaluator
from ..evaluator_schema.values import ModuleHole, ParameterHole, ParametersHole, is_unresolved
from .canonical import canonical
from .inventory import Inventory
from .matching import Match, Missing, Report, live_parameters, match
from .renaming import Rename

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
    model: Module | Inventory,
    optimizers: Specs,
    lr_schedulers: Specs,
    *,
    rename: Rename | None = None,
    missing: Missing = "raise",
    current: Match | None = None,
) -> Reinitialised:
    """Build optimizers and schedulers on a model.

    Args:
        evaluator: Whose parameters they are. What it can learn of their names from `model`, it has learned.
        model: The model, or what a walk over it found.
        optimizers: One construction, or several.
        lr_schedulers: One construction, several, or None.
        rename: From recorded parameter names to the model's.
        missing: `"ignore"` leaves out what the model does not have.
        current: Where the recorded parameters are in the model that was bound so far.

    Raises:
        UnresolvedParametersError: The recorded parameters have no names, and `model` is not theirs.
        MissingParametersError: A recorded parameter is not in the model.
        BindError: An optimizer would be empty, or the specs cannot be built on this model.
    """
    inventory = model if isinstance(model, Inventory) else Inventory(model)
    specs = [*_listed(optimizers), *_listed(lr_schedulers)]
    recorded = _recorded_names(specs)
    if not _is_home(evaluator, recorded, inventory):
        evaluator.require_names()
    live = live_parameters(evaluator._live, current)
    matched = match(recorded, inventory, rename=rename, missing=missing, live=live)
    built = _build(specs, matched)
    fresh = _formed(optimizers, built)
    for index, optimizer in enumerate(fresh if isinstance(fresh, list) else [fresh]):
        if not any(group["params"] for group in optimizer.param_groups):
            raise BindError(f"optimizer {index} ({type(optimizer).__name__}) would have no parameters to train")
    return Reinitialised(fresh, _formed(lr_schedulers, built), matched)


def _is_home(evaluator: Evaluator, recorded: list[tuple[str, ...]], inventory: Inventory) -> bool:
    """Tell whether every recorded parameter lives in this very model, or their names are sure anyway."""
    sure = evaluator._guessed_root is None and not any(is_unresolved(names[0]) for names in recorded)
    if sure or (evaluator._guessed_root is not None and evaluator._guessed_root() is inventory.model):
        return True
    inside = set(map(id, inventory.parameters.values()))
    alive = [evaluator._live[names[0]]() for names in recorded if names[0] in evaluator._live]
    return len(alive) == len(recorded) and all(id(tensor) in inside for tensor in alive)


def _recorded_names(specs: list[Construction]) -> list[tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for hole in holes_in(specs):
        if isinstance(hole, ParameterHole):
            names[hole.name] = (hole.name, *hole.aliases)
        else:
            names.update(zip(hole.names, zip(hole.names, strict=True), strict=True))
            names.update((name, (name, *aliases)) for name, aliases in hole.aliases)
    return list(names.values())


def _build(specs: list[Construction], matched: Match) -> dict[int, Any]:
    try:
        return build(specs, _ModelFilling(matched))
    except RebindError:
        raise
    except Exception as error:
        raise BindError(f"the recorded constructions do not fit this model: {error}") from error


class _ModelFilling:
    """A model, seen through the names that were recorded."""

    def __init__(self, matched: Match) -> None:
        self._match = matched
        self._model = matched.inventory.model

    def parameter(self, hole: ParameterHole) -> torch.Tensor:
        new = self._match.found[hole.name]
        if len(new) != 1:
            raise BindError(
                f"{hole.name!r} was recorded as one parameter and is {len(new)} in this model, where one is needed"
            )
        return self._match.parameters[new[0]]

    def parameters(self, hole: ParametersHole) -> list[Any]:
        found, tensors = self._match.found, self._match.parameters
        names = [new for name in hole.names for new in found[name]]
        if hole.model_order and names != list(tensors):
            names.sort(key=self._match.inventory.places.__getitem__)
        if len(names) != len(tensors):  # parameters that were two may be tied here
            names = list({id(tensors[name]): name for name in reversed(names)}.values())[::-1]
        return [(name, tensors[name]) for name in names] if hole.named else [tensors[name] for name in names]

    def module(self, hole: ModuleHole) -> Module:
        if not hole.name:
            return self._model
        modules = dict(self._model.named_modules())
        if hole.name in modules:
            return modules[hole.name]
        wanted = _canonical_path(hole.name)
        alike = [module for name, module in modules.items() if name and _canonical_path(name) == wanted]
        if not alike:
            raise BindError(f"the model has no module {hole.name!r}, which a recorded construction takes")
        # Of a wrapper and what it wraps, both have the path; the inner one is what was recorded.
        return alike[-1]


def _canonical_path(name: str) -> str:
    return canonical(f"{name}.weight").removesuffix(".weight")


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
