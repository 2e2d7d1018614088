"""What is said where nobody vouches for a file: which of its fields need trust, and how to give it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ..evaluator_schema.declarative.importing import is_allowed
from ..evaluator_schema.errors import UntrustedPayloadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import ValidationError

    from .manifest import Manifest

_IMPORT_PATH: Final = re.compile(r"([^\W\d][\w.]*):[^\W\d][\w.]*")


def require_trust(manifest: Manifest, *, vouched: bool) -> None:
    """Refuse pickled code that nobody vouches for.

    Raises:
        UntrustedPayloadError: Naming the fields that carry it.
    """
    if not vouched:
        raise UntrustedPayloadError(
            "These bytes carry pickled code, which could do anything, in: "
            f"{', '.join(manifest.code_fields)}. {_key_cure(manifest)}, or pass trusted=True if you "
            "know who wrote them."
        )


def untrusted_imports(manifest: Manifest, strange: Mapping[str, Iterable[str]]) -> UntrustedPayloadError:
    """The error for import paths that lead to modules which may not be imported.

    Args:
        manifest: Of the file.
        strange: For each field, the modules that its import paths lead to.
    """
    modules = sorted({module for found in strange.values() for module in found})
    places = "; ".join(f"{field} to {_listed(sorted(set(found)))}" for field, found in strange.items())
    return UntrustedPayloadError(
        f"These bytes carry no pickled code, and import paths in them lead to modules that are not on "
        f"the allow-list, each of which would run when it is imported: {places}. Pass allow={modules} "
        f"if you trust these modules. {_key_cure(manifest)}. Or pass trusted=True if you know who "
        "wrote the bytes."
    )


def strange_modules(error: ValidationError, allow: Iterable[str]) -> dict[str, list[str]]:
    """For each field that did not validate, the modules in its import paths that may not be imported."""
    allow = tuple(allow)
    strange: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False, include_context=False):
        modules = [module for module in _modules(problem["input"]) if not is_allowed(module, allow)]
        if modules:
            strange.setdefault(".".join(map(str, problem["loc"])), []).extend(modules)
    return strange


def _modules(value: Any) -> Iterator[str]:
    """The modules of all import paths in a JSON value."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, str) and (path := _IMPORT_PATH.fullmatch(each)):
            yield path[1]
        elif isinstance(each, dict):
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)


def _key_cure(manifest: Manifest) -> str:
    if manifest.signed:
        return f"They are {manifest.signature}: pass key= to verify that"
    return "They are unsigned: write them with key= and pass the same key here"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
