"""The canonical name of a parameter: its name with everything stripped that wrappers put into it."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Components that wrappers insert, and that name nothing of the user's own.
_INSERTED = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_nni_wrapper"})
# Components that wrappers insert, and that a user's own module may be called too.
_AMBIGUOUS = frozenset({"module", "base_layer"})
# Components under which a wrapper keeps a model, or part of one, that is not the one it trains.
_AUXILIARY = frozenset({"_teacher_model", "original_module"})
_PEFT = re.compile(r"^((?:.*\.)?)base_model\.model\.")
_PEFT_COPY = re.compile(r"(^|\.)modules_to_save\.[^.]+\.")
_PARAMETRIZED = re.compile(r"(^|\.)parametrizations\.([^.]+)\.original([01]?)$")
_SUFFIXED = re.compile(r"(?<=[^.])_(orig|g|v)$")
_ROLES = {"original0": 0, "original1": 1}


def canonical(name: str) -> str:
    """Strip what wrappers, parametrizations and pruning put into a parameter's name.

    Sources: DistributedDataParallel and AveragedModel (`module.`), torch.compile (`_orig_mod.`),
    checkpoint_wrapper, FSDP, peft (`base_model.model.`, `.base_layer`, `modules_to_save.default`),
    torch.nn.utils.parametrize (`parametrizations.weight.original`), weight_norm (`weight_g`, `weight_v`,
    `original0`, `original1`) and torch.nn.utils.prune (`weight_orig`).

    Example:
        >>> canonical("module._orig_mod.fc.parametrizations.weight.original")
        'fc.weight'
    """
    if "." in name:
        name = _PARAMETRIZED.sub(r"\1\2", _PEFT_COPY.sub(r"\1", _PEFT.sub(r"\1", name)))
    *parts, last = name.split(".")
    kept = [part for part in parts if part not in _INSERTED and part not in _AMBIGUOUS]
    return ".".join([*kept, _SUFFIXED.sub("", last)])


def by_canonical(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by their canonical one.

    Several names share one where a weight was split in two (weight_norm), or where stripping made
    different parameters look alike; the caller tells the two apart with `is_split`.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(canonical(name), []).append(name)
    return groups


def half_of(name: str) -> int | None:
    """Tell which half of a split weight a name may be: 0 for the magnitude, 1 for the direction, or None.

    Example:
        >>> half_of("fc.weight_v"), half_of("fc.parametrizations.weight.original0"), half_of("fc.weight")
        (1, 0, None)
    """
    last = name.rpartition(".")[2]
    if last in _ROLES:
        return _ROLES[last]
    return {"_g": 0, "_v": 1}.get(last[-2:]) if len(last) > 2 else None


def other_half_of(name: str) -> str | None:
    """Give the name that the other half of a split weight would have, or None.

    Example:
        >>> other_half_of("fc.weight_v")
        'fc.weight_g'
    """
    half = half_of(name)
    return None if half is None else name[:-1] + {"g": "v", "v": "g", "0": "1", "1": "0"}[name[-1]]


def is_split(names: Iterable[str]) -> bool:
    """Tell whether names are the magnitude and the direction that weight_norm made of one weight."""
    listed = list(names)
    if len(listed) != 2 or [half_of(name) for name in listed] != [0, 1]:
        return False
    stems = {re.sub(r"(\.original[01]|_[gv])$", "", name) for name in listed}
    return len(stems) == 1


def is_auxiliary(name: str) -> bool:
    """Tell whether a parameter belongs to what a wrapper keeps beside the model that it trains.

    Sources: nvidia-modelopt's distillation (`_teacher_model.`), peft's `modules_to_save`
    (`original_module.`).
    """
    return not _AUXILIARY.isdisjoint(name.split("."))
