"""Fresh optimizers and schedulers for a model, as the user's own code would have built them there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Module

from ...evaluator_schema.build import build
from ...evaluator_schema.checking.signatures import name_of
from ...evaluator_schema.construction import Construction, holes_in
from ...evaluator_schema.errors import BindError, RebindError
from ...evaluator_schema.evaluator import Evaluator
from ...evaluator_schema.values import UNRESOLVED, ModuleHole, ParameterHole, ParametersHole
from ..naming.canonical import canonical
from ..naming.inventory import Inventory
from ..naming.matching import Match, Missing, Recorded, Report, live_parameters, match
from ..naming.renaming import Rename

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
    recorded = _recorded_names([*_listed(optimizers), *_listed(lr_schedulers)])
    if _some_nameless(recorded):
        optimizers, lr_schedulers = _resolved(evaluator, inventory.model, (optimizers, lr_schedulers))
        recorded = _recorded_names([*_listed(optimizers), *_listed(lr_schedulers)])
    if not _is_home(evaluator, recorded, inventory):
        evaluator.require_names()
    live = live_parameters(evaluator._live, current)
    former = current.found if current is not None else None
    matched = match(recorded, inventory, rename=rename, missing=missing, live=live, former=former)
    _refuse_empty(_listed(optimizers), matched)
    built = _build([*_listed(optimizers), *_listed(lr_schedulers)], matched)
    return Reinitialised(_formed(optimizers, built), _formed(lr_schedulers, built), matched)


def _refuse_empty(optimizers: list[Construction], matched: Match) -> None:
    if matched.is_exact:
        return
    for index, optimizer in enumerate(optimizers):
        if not any(matched.found[name] for name in _recorded_names([optimizer])):
            raise BindError(
                f"optimizer {index} ({name_of(optimizer.target)}) would have no parameters to train: none "
                "of those that were recorded for it are in this model"
            )


def _some_nameless(recorded: Recorded) -> bool:
    # Many times faster than to ask of each name, and this is asked at every binding.
    return f"\n{UNRESOLVED}" in "\n" + "\n".join(recorded)


def _resolved(evaluator: Evaluator, model: Module, specs: tuple[Specs, Specs]) -> tuple[Specs, Specs]:
    """Let an evaluator learn names from a model, and give what became of its specs."""
    fields = {id(value): name for name, value in evaluator.fields().items()}
    evaluator.resolve_names(model)
    first, second = (
        getattr(evaluator, fields[id(spec)]) if spec is not None and id(spec) in fields else spec
        for spec in specs
    )
    return first, second


def _is_home(evaluator: Evaluator, recorded: Recorded, inventory: Inventory) -> bool:
    """Tell whether every recorded parameter lives in this very model, or their names are sure anyway."""
    guessed = None if evaluator._guessed_root is None else evaluator._guessed_root()
    if (guessed is None or guessed is inventory.model) and not _some_nameless(recorded):
        return True
    alive = [evaluator._live[name]() for name in recorded if name in evaluator._live]
    return len(alive) == len(recorded) and all(id(tensor) in inventory.names for tensor in alive)


def _recorded_names(specs: list[Construction]) -> Recorded:
    """Give each recorded name with the further names that the parameter had."""
    names: dict[str, tuple[str, ...]] = {}
    for hole in holes_in(specs):
        if isinstance(hole, ParameterHole):
            names[hole.name] = hole.aliases
        else:
            names.update(dict.fromkeys(hole.names, ()))
            names.update(hole.aliases)
    return names


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
                f"{hole.name!r} was recorded as one parameter, is {len(new)} in this model, and one is needed"
            )
        return self._match.parameters[new[0]]

    def parameters(self, hole: ParametersHole) -> list[Any]:
        match, tensors = self._match, self._match.parameters
        names = list(hole.names) if match.is_exact else [n for name in hole.names for n in match.found[name]]
        if match.is_exact and names == list(tensors):
            return list(tensors.items() if hole.named else tensors.values())
        if hole.model_order:
            names.sort(key=match.inventory.places.__getitem__)
        if not match.is_exact:  # parameters that were two may be tied here
            first: dict[int, str] = {}
            for name in names:
                first.setdefault(id(tensors[name]), name)
            names = list(first.values())
        return [(name, tensors[name]) for name in names] if hole.named else [tensors[name] for name in names]

    def module(self, hole: ModuleHole) -> Module:
        if not hole.name:
            return self._model
        modules: dict[str, Module] = dict(self._model.named_modules())
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
