"""New names of parameters, as the caller tells them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from ...evaluator_schema.errors import BindError, MissingParametersError
from .suggesting import nearest, quoted

# From recorded names to new ones: a mapping, a function (None: no change), or (pattern, replacement) pairs.
Rename = Mapping[str, str] | Callable[[str], str | None] | Sequence[tuple[str, str]]


def renames(recorded: Iterable[str], known: Mapping[str, object], rename: Rename | None) -> dict[str, str]:
    """Give the new names of those recorded names that change.

    Args:
        recorded: The recorded names.
        known: The model's parameters by name.
        rename: What the caller told. Of pairs, the first whose pattern is found in a name counts.

    Raises:
        BindError: A mapping names what neither was recorded nor is in the model, or `rename` is neither.
        MissingParametersError: A new name is not in the model.
    """
    if rename is None:
        return {}
    names = list(recorded)
    if isinstance(rename, Mapping):
        # A mapping may speak of the whole model, and so of parameters that no optimizer has; where it means
        # neither a recorded parameter nor one of the model, it is a slip.
        unknown = sorted(old for old in set(rename) - set(names) if rename[old] not in known)
        if unknown:
            raise BindError(f"rename: {quoted(unknown)} was not recorded{nearest(unknown[0], names)}")
        renamed = {name: rename[name] for name in names if name in rename}
    else:
        change = _changing(rename)
        changed = ((name, change(name)) for name in names)
        renamed = {name: new for name, new in changed if new is not None and new != name}
    strangers = [new for new in renamed.values() if new not in known]
    if strangers:
        raise MissingParametersError(
            f"rename: the model has no parameter {quoted(strangers)}{nearest(strangers[0], known)}"
        )
    return renamed


def _changing(rename: Callable[[str], str | None] | Sequence[tuple[str, str]]) -> Callable[[str], str | None]:
    if callable(rename):
        return rename
    try:
        pairs = [(re.compile(pattern), replacement) for pattern, replacement in rename]
    except (TypeError, ValueError, re.error) as error:
        raise BindError(
            "rename must be a mapping, a function of a name, or pairs of a regular expression and its "
            f"replacement, not {rename!r} ({error})"
        ) from error

    def change(name: str) -> str | None:
        for pattern, replacement in pairs:
            changed, count = pattern.subn(replacement, name)
            if count:
                return changed
        return None

    return change
