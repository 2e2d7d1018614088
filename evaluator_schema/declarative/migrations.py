"""Specs that were written for other versions of a library, brought up to the one installed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..checking.signatures import names_argument, signature_of
from ..errors import ImportPathError
from .importing import is_under, resolve

# A construction as it is written: `target` (an import path), `args`, `kwargs` and the rest.
Spec = dict[str, Any]
Migration = Callable[[Spec], Spec]

_migrations: list[tuple[str, Migration]] = []


def add_migration(target: str, migrate: Migration) -> Migration:
    """Have written specs changed before they are validated, where a library changed since.

    Args:
        target: The import path of what the spec constructs, as it stands in the spec
            (`"my_package:Warmup"`), or a module, for everything in it (`"my_package.schedulers"`).
        migrate: Takes the spec, a dict with `target`, `args` and `kwargs` in JSON form, and gives the
            spec to validate in its place. It is called with a copy, and for specs of every age.

    Returns:
        `migrate`.

    Example:
        >>> from rebind import add_migration
        >>> def rename_rate(spec):
        ...     if "rate" in spec["kwargs"]:
        ...         spec["kwargs"]["lr"] = spec["kwargs"].pop("rate")
        ...     return spec
        >>> _ = add_migration("my_package:Optimizer", rename_rate)
    """
    _migrations.append((target, migrate))
    return migrate


def migration_count() -> int:
    """Tell how many migrations there are; one that was added may change what was read before."""
    return len(_migrations)


def migrated(spec: Spec) -> Spec:
    """Apply all migrations for a spec's target, in the order in which they were added."""
    for target, migrate in _migrations:
        path = spec.get("target")
        if isinstance(path, str) and (path == target or is_under(path.partition(":")[0], (target,))):
            args, kwargs = spec.get("args", ()), spec.get("kwargs", {})
            if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
                return spec  # validation tells what is wrong with it
            spec = migrate({**spec, "args": list(args), "kwargs": dict(kwargs)})
    return spec


def _without_verbose(spec: Spec) -> Spec:
    """Drop `verbose`, which schedulers only printed with, and which torch 2.7 removed."""
    if "verbose" not in spec["kwargs"] and not any(isinstance(value, bool) for value in spec["args"][-1:]):
        return spec
    try:
        target = resolve(spec["target"])
    except ImportPathError:
        return spec
    signature = signature_of(target)
    if signature is None or names_argument(target, "verbose"):
        return spec
    spec["kwargs"].pop("verbose", None)
    if len(spec["args"]) > len(signature.parameters):
        spec["args"].pop()
    return spec


add_migration("torch.optim.lr_scheduler", _without_verbose)
add_migration("torch.optim.swa_utils", _without_verbose)
