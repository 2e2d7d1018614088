"""Finding the recorded parameters in a model, by identity and by name."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch.nn import Parameter

from ...evaluator_schema.display import html_table
from ...evaluator_schema.errors import BindError, MissingParametersError
from .canonical import by_canonical, canonical, half_of, is_auxiliary, is_split, other_half_of
from .inventory import Inventory
from .renaming import Rename, renames
from .suggesting import common_prefix, nearest, quoted

# Each recorded name with the further names that the parameter had, where weights were tied.
Recorded = Mapping[str, tuple[str, ...]]
Missing = Literal["raise", "ignore"]
Live = Mapping[str, Callable[[], torch.Tensor | None]]


@dataclass(frozen=True)
class Report:
    """How the recorded parameters were found in a model, and what became of their optimizer state.

    Attributes:
        matched: Names in the model of the recorded parameters that were found.
        renamed: For those whose name changed, the new name by the recorded one.
        missing: Recorded names that the model does not have.
        new: Names of the model's parameters that were not recorded, and so are in no optimizer.
        frozen: Those of `matched` that do not require gradients, and so do not train.
        carried: Names of the parameters whose optimizer state the last `rebind` copied.
        sliced: Names of those whose optimizer state it sliced for the channels that were kept.
    """

    matched: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    sliced: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} parameters matched"]
        lines += [f"  {old} -> {new}" for old, new in self.renamed.items()]
        for title in ("missing", "new", "frozen", "carried", "sliced"):
            names = getattr(self, title)
            if names:
                lines.append(f"{len(names)} {title}: {', '.join(names[:8])}{', ...' * (len(names) > 8)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        names = {title: getattr(self, title) for title in ("missing", "new", "frozen", "carried", "sliced")}
        rows = [{"parameter": old, "found as": new} for old, new in self.renamed.items()]
        rows += [{"parameter": name, "is": title} for title in names for name in names[title]]
        return html_table(f"{len(self.matched)} parameters matched", rows)


@dataclass(frozen=True)
class Match:
    """Where the recorded parameters are in a model.

    Attributes:
        recorded: The recorded names.
        inventory: The model's parameters by name.
        elsewhere: New names by recorded name; None where each is the model's own, and a parameter of its own.
    """

    recorded: Recorded
    inventory: Inventory
    elsewhere: Mapping[str, tuple[str, ...]] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether each recorded name is the model's own, and a parameter of its own."""
        return self.elsewhere is None

    @cached_property
    def found(self) -> Mapping[str, tuple[str, ...]]:
        """New names by recorded name.

        Two where weight_norm split a weight or tied weights were untied, none where it is missing.
        """
        return {name: (name,) for name in self.recorded} if self.elsewhere is None else self.elsewhere

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The model's parameters by name, tied ones under each of their names."""
        return self.inventory.parameters

    @cached_property
    def report(self) -> Report:
        """The same for people."""
        matched = tuple(dict.fromkeys(new for names in self.found.values() for new in names))
        used = {id(self.parameters[name]) for name in matched}
        return Report(
            matched=matched,
            renamed={old: " + ".join(new) for old, new in self.found.items() if new and new != (old,)},
            missing=tuple(name for name, new in self.found.items() if not new),
            new=tuple(names[0] for key, names in self.inventory.names.items() if key not in used),
            frozen=tuple(name for name in matched if not self.parameters[name].requires_grad),
        )


def match(
    recorded: Recorded,
    inventory: Inventory,
    *,
    rename: Rename | None = None,
    missing: Missing = "raise",
    live: Live | None = None,
    former: Mapping[str, tuple[str, ...]] | None = None,
) -> Match:
    """Find recorded parameters in a model.

    Each is looked for under the name that `rename` gives; then as the very Parameter object that was
    recorded; then under its own name; then under its canonical name.

    Args:
        recorded: The recorded names.
        inventory: The model to look in.
        rename: Recorded names to new ones.
        missing: `"raise"`, or `"ignore"` to leave out what the model does not have.
        live: The recorded Parameter objects by name, as far as they live.
        former: Where the recorded parameters were in the model that was bound before, as a last resort.

    Raises:
        MissingParametersError: A recorded parameter is not there, or none at all is.
        BindError: `rename` names what was not recorded, or gives two parameters one name.
    """
    if missing not in ("raise", "ignore"):
        raise BindError(f"missing must be 'raise' or 'ignore', not {missing!r}")
    if rename is None:
        exact = _match_exactly(recorded, inventory, live or {})
        if exact is not None:
            return exact
    new_names = renames(
        [n for name, aliases in recorded.items() for n in (name, *aliases)], inventory.parameters, rename
    )
    finder = _Finder(
        inventory, live or {}, new_names, {n for name, aliases in recorded.items() for n in (name, *aliases)}
    )
    finder.former = former or {}
    found = {name: finder.find_all((name, *aliases)) for name, aliases in recorded.items()}
    _refuse_collisions(found, inventory.parameters)
    absent = [name for name, new in found.items() if not new]
    if absent and (missing == "raise" or len(absent) == len(found)):
        raise MissingParametersError(_explain_missing(absent, found, inventory.parameters))
    return Match(recorded, inventory, found)


def _match_exactly(recorded: Recorded, inventory: Inventory, live: Live) -> Match | None:
    """Match where each recorded name is the model's own, nothing is tied, and no identity tells otherwise.

    This is the common case, and what runs for each parameter here runs in C: so a binding costs hardly more
    than its optimizers.
    """
    parameters = inventory.parameters
    ours = list(map(id, map(parameters.get, recorded)))
    distinct = set(ours)
    if id(None) in distinct or len(distinct) != len(ours) or any(recorded.values()):
        return None
    alive = {id(tensor) for tensor in [ref() for ref in live.values()] if tensor is not None}
    if alive and not alive.isdisjoint(map(id, parameters.values())):
        recalled = [live[name]() if name in live else None for name in recorded]
        if any(tensor is not None and id(tensor) != own for tensor, own in zip(recalled, ours, strict=True)):
            return None
    return Match(recorded, inventory)


class _Finder:
    def __init__(
        self, inventory: Inventory, live: Live, new_names: Mapping[str, str], recorded: set[str]
    ) -> None:
        self._inventory = inventory
        self._parameters = inventory.parameters
        self._live = live
        self._new_names = new_names
        self._recorded = recorded
        self.former: Mapping[str, tuple[str, ...]] = {}

    @cached_property
    def _canonical(self) -> Mapping[str, list[str]]:
        return by_canonical(name for name in self._parameters if not is_auxiliary(name))

    def find_all(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Find one recorded parameter, and what became of its further names where weights were tied."""
        found: dict[int, str] = {}
        for name in names:
            for new in self._find(name):
                found.setdefault(id(self._parameters[new]), new)
        return tuple(found.values())

    def _find(self, name: str) -> tuple[str, ...]:
        if name in self._new_names:
            return (self._new_names[name],)
        same = self._by_identity(name)
        named = self._by_name(name) or tuple(n for n in self.former.get(name, ()) if n in self._parameters)
        if same is None:
            return named
        if not named:
            return () if self._has_rival(name, same) else (same,)
        return named if self._is_set_aside(name, same, named) else (same,)

    def _by_identity(self, name: str) -> str | None:
        tensor = self._live[name]() if name in self._live else None
        names = self._inventory.names.get(id(tensor), ()) if tensor is not None else ()
        if name in names:
            return name
        return next((other for other in names if not is_auxiliary(other)), names[0] if names else None)

    def _by_name(self, name: str) -> tuple[str, ...]:
        if name in self._parameters:
            return (name,)
        half = half_of(name) if other_half_of(name) in self._recorded else None
        alike = self._canonical.get(canonical(name), [])
        if is_split(alike):
            return (alike[half],) if half is not None else tuple(alike)
        # A lone `x_v` is a parameter of its own, and no half of `x`.
        lone = half_of(name) is not None and half is None
        return tuple(alike) if len(alike) == 1 and half_of(alike[0]) is None and not lone else ()

    def _is_set_aside(self, name: str, same: str, named: tuple[str, ...]) -> bool:
        """Tell whether the recorded object now only serves another parameter that took its name.

        Distillation keeps the model as the frozen teacher of a student; peft keeps a frozen original beside
        the copy that trains.
        """
        if all(self._parameters[other] is self._parameters[same] for other in named):
            return False
        if is_auxiliary(same) and not is_auxiliary(name):
            return True
        frozen = not self._parameters[same].requires_grad
        return frozen and all(self._parameters[other].requires_grad for other in named)

    def _has_rival(self, name: str, same: str) -> bool:
        """Tell whether the recorded object was frozen, and one that trains ends in its name elsewhere."""
        if self._parameters[same].requires_grad:
            return False
        return any(
            other.endswith(f".{name}") and parameter.requires_grad
            for other, parameter in self._parameters.items()
        )


def _refuse_collisions(found: dict[str, tuple[str, ...]], parameters: Mapping[str, Parameter]) -> None:
    """Refuse two recorded parameters that would be one, unless the model itself made them one.

    It does where weights are tied, and where the halves of weight_norm are one weight again; the parameter
    then stands once, where the first of the two stood.
    """
    taken: dict[int, str] = {}
    for name, new_names in found.items():
        kept = []
        for new in new_names:
            other = taken.setdefault(id(parameters[new]), name)
            if other == name:
                kept.append(new)
            elif new in found[other] and not (is_split([other, name]) or is_split([name, other])):
                raise BindError(
                    f"{name!r} and {other!r} would both be {new!r} in the model; tell them apart with rename="
                )
        found[name] = tuple(kept) or new_names


def _explain_missing(
    absent: Sequence[str], found: Mapping[str, tuple[str, ...]], parameters: Mapping[str, Parameter]
) -> str:
    lines = [
        f"{len(absent)} of {len(found)} recorded parameters are not in the model:",
        *(f"  {name}{nearest(name, parameters)}" for name in absent[:10]),
        *(["  ..."] if len(absent) > 10 else []),
    ]
    if any(name.endswith("_flat_param") for name in parameters):
        lines.append("The model's parameters were flattened: create its FSDP with use_orig_params=True.")
    elif len(absent) == len(found):
        lines.append(
            "None was found, so there would be nothing to train. Is this a similar model? Its names start "
            f"with {quoted(list(parameters)[:3]) or 'nothing: it has no parameters'}."
        )
    prefix = common_prefix(absent, parameters) if len(absent) == len(found) else None
    rename = f"[(r'^', {prefix!r})]" if prefix else "{'old.name': 'new.name'}"
    lines.append(f"Tell new names with rename={rename}, or leave them out with missing='ignore'.")
    return "\n".join(lines)


def live_parameters(refs: Mapping[str, weakref.ref[torch.Tensor]], current: Match | None) -> Live:
    """Give the Parameter objects that recorded names stand for: in the bound model, or else as recorded."""
    if current is None:
        return refs
    now: dict[str, Callable[[], torch.Tensor | None]] = dict(refs)
    for name, new_names in current.found.items():
        if len(new_names) == 1:
            now[name] = weakref.ref(current.parameters[new_names[0]])
    return now
