"""The canonical name of a parameter: its name with everything stripped that wrappers put into it."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Components that wrappers insert, and that name nothing of the user's own.
_INSERTED = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_nni_wrapper"})
# Components that wrappers insert, and that a user's own module may be called too.
_AMBIGUOUS = frozenset({"module", "base_layer"})
_PEFT = re.compile(r"^base_model\.model\.")
_PARAMETRIZED = re.compile(r"(^|\.)parametrizations\.([^.]+)\.original[01]?$")
_SUFFIXED = re.compile(r"(?<=[^.])_(orig|g|v)$")


def canonical(name: str) -> str:
    """Strip what wrappers, parametrizations and pruning put into a parameter's name.

    Sources: DistributedDataParallel and AveragedModel (`module.`), torch.compile (`_orig_mod.`),
    checkpoint_wrapper, FSDP, peft (`base_model.model.`, `.base_layer`), torch.nn.utils.parametrize
    (`parametrizations.weight.original`), weight_norm (`weight_g`, `weight_v`, `original0`, `original1`) and
    torch.nn.utils.prune (`weight_orig`).

    Example:
        >>> canonical("module._orig_mod.fc.parametrizations.weight.original")
        'fc.weight'
    """
    name = _PARAMETRIZED.sub(r"\1\2", _PEFT.sub("", name))
    parts = [part for part in name.split(".") if part not in _INSERTED]
    kept = [part for part in parts[:-1] if part not in _AMBIGUOUS]
    return _SUFFIXED.sub("", ".".join([*kept, *parts[-1:]]))


def by_canonical(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by their canonical one.

    Several names share one where a weight was split in two (weight_norm), or where stripping made
    different parameters look alike; the caller tells the two apart with `is_split`.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(canonical(name), []).append(name)
    return groups


def is_split(names: list[str]) -> bool:
    """Tell whether names are the magnitude and the direction that weight_norm made of one weight."""
    if len(names) != 2:
        return False
    stems = {re.sub(r"(\.original[01]|_[gv])$", "", name) for name in names}
    return len(stems) == 1 and stems.isdisjoint(names)
