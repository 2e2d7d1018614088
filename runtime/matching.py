"""Finding the recorded parameters in a model, by identity and by name."""

from __future__ import annotations

import difflib
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.nn import Module

from ..evaluator_schema.errors import BindError, MissingParametersError
from .canonical import by_canonical, canonical, is_split

# From recorded names to new ones: a mapping, a function (None: no change), or (pattern, replacement) pairs.
Rename = Mapping[str, str] | Callable[[str], str | None] | Sequence[tuple[str, str]]
Missing = Literal["raise", "ignore"]


@dataclass(frozen=True)
class Report:
    """How the recorded parameters were found in a model.

    Attributes:
        matched: Names in the model of the recorded parameters that were found.
        renamed: For those whose name changed, the new name by the recorded one.
        missing: Recorded names that the model does not have.
        new: Names of the model's parameters that were not recorded, and so are in no optimizer.
    """

    matched: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    new: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} parameters matched"]
        lines += [f"  {old} -> {new}" for old, new in self.renamed.items()]
        for title, names in (("missing", self.missing), ("new", self.new)):
            if names:
                lines.append(f"{len(names)} {title}: {', '.join(names[:8])}{', ...' * (len(names) > 8)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Match:
    """Where the recorded parameters are in a model.

    Attributes:
        found: New names by recorded name; two where weight_norm split a weight, none where it is missing.
        parameters: The model's parameters by name, tied ones under each of their names.
        report: The same for people.
    """

    found: Mapping[str, tuple[str, ...]]
    parameters: Mapping[str, torch.nn.Parameter]
    report: Report


def match(
    recorded: Sequence[tuple[str, ...]],
    model: Module,
    *,
    rename: Rename | None = None,
    missing: Missing = "raise",
    live: Mapping[str, weakref.ref[torch.Tensor]] | None = None,
) -> Match:
    """Find recorded parameters in a model.

    Each is looked for under the name that `rename` gives; then as the very Parameter object that was
    recorded; then under its own name; then under its canonical name.

    Args:
        recorded: The recorded names, each with its aliases behind it.
        model: The model to look in.
        rename: Recorded names to new ones.
        missing: `"raise"`, or `"ignore"` to leave out what the model does not have.
        live: The recorded Parameter objects by name, as far as they live.

    Raises:
        MissingParametersError: A recorded parameter is not there, or none at all is.
        BindError: `rename` names what was not recorded or is not in the model, or gives two parameters one name.
    """
    if missing not in ("raise", "ignore"):
        raise BindError(f"missing must be 'raise' or 'ignore', not {missing!r}")
    parameters = dict(model.named_parameters(remove_duplicate=False))
    finder = _Finder(parameters, live or {})
    renames = _renames([name for names in recorded for name in names], parameters, rename)
    found: dict[str, tuple[str, ...]] = {}
    for names in recorded:
        found[names[0]] = finder.find_all(names, renames)
    _refuse_collisions(found, parameters)
    absent = [name for name, new in found.items() if not new]
    if absent and (missing == "raise" or len(absent) == len(found)):
        raise MissingParametersError(_explain_missing(absent, found, parameters))
    return Match(found, parameters, _report(found, parameters, absent))


class _Finder:
    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        live: Mapping[str, weakref.ref[torch.Tensor]],
    ) -> None:
        self._parameters = parameters
        self._live = live
        self._names: dict[int, str] = {}
        for name, parameter in parameters.items():
            self._names.setdefault(id(parameter), name)
        self._canonical = by_canonical(parameters)

    def find_all(self, names: tuple[str, ...], renames: Mapping[str, str]) -> tuple[str, ...]:
        """Find one recorded parameter, and what became of its further names where weights were tied."""
        found: dict[int, str] = {}
        for name in names:
            for new in self._find(name, renames):
                found.setdefault(id(self._parameters[new]), new)
        return tuple(found.values())

    def _find(self, name: str, renames: Mapping[str, str]) -> tuple[str, ...]:
        if name in renames:
            return (renames[name],)
        tensor = self._live[name]() if name in self._live else None
        if tensor is not None and id(tensor) in self._names:
            return (self._names[id(tensor)],)
        if name in self._parameters:
            return (name,)
        alike = self._canonical.get(canonical(name), [])
        return tuple(alike) if len(alike) == 1 or is_split(alike) else ()


def _renames(
    recorded: Iterable[str], parameters: Mapping[str, object], rename: Rename | None
) -> dict[str, str]:
    if rename is None:
        return {}
    names = list(recorded)
    if isinstance(rename, Mapping):
        unknown = [name for name in rename if name not in names]
        if unknown:
            raise BindError(f"rename: {_quoted(unknown)} was not recorded{_near(unknown[0], names)}")
        renamed = dict(rename)
    else:
        changed = ((name, _apply(rename, name)) for name in names)
        renamed = {name: new for name, new in changed if new is not None and new != name}
    strangers = [new for new in renamed.values() if new not in parameters]
    if strangers:
        raise MissingParametersError(
            f"rename: the model has no parameter {_quoted(strangers)}{_near(strangers[0], parameters)}"
        )
    return renamed


def _apply(rename: Rename, name: str) -> str | None:
    if callable(rename):
        return rename(name)
    for pattern, replacement in rename:
        changed, count = re.subn(str(pattern), replacement, name)
        if count:
            return changed
    return None


def _refuse_collisions(
    found: Mapping[str, tuple[str, ...]], parameters: Mapping[str, torch.nn.Parameter]
) -> None:
    taken: dict[int, str] = {}
    for name, new_names in found.items():
        for new in new_names:
            other = taken.setdefault(id(parameters[new]), name)
            if other != name:
                raise BindError(
                    f"{name!r} and {other!r} would both be {new!r} in the model; tell them apart with rename="
                )


def _explain_missing(
    absent: Sequence[str],
    found: Mapping[str, tuple[str, ...]],
    parameters: Mapping[str, torch.nn.Parameter],
) -> str:
    lines = [
        f"{len(absent)} of {len(found)} recorded parameters are not in the model:",
        *(f"  {name}{_near(name, parameters)}" for name in absent[:10]),
        *(["  ..."] if len(absent) > 10 else []),
    ]
    if len(absent) == len(found):
        lines.append(
            "None was found, so there would be nothing to train. Is this a similar model? Its names start "
            f"with {_quoted(list(parameters)[:3]) or 'nothing: it has no parameters'}."
        )
    lines.append("Tell new names with rename={'old.name': 'new.name'}, or leave them out with missing='ignore'.")
    return "\n".join(lines)


def _report(
    found: Mapping[str, tuple[str, ...]],
    parameters: Mapping[str, torch.nn.Parameter],
    absent: Sequence[str],
) -> Report:
    matched = tuple(new for new_names in found.values() for new in new_names)
    used = {id(parameters[name]) for name in matched}
    fresh: dict[int, str] = {}
    for name, parameter in parameters.items():
        if id(parameter) not in used:
            fresh.setdefault(id(parameter), name)
    renamed = {old: " + ".join(new) for old, new in found.items() if new and new != (old,)}
    return Report(matched, renamed, tuple(absent), tuple(fresh.values()))


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
