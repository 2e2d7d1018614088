"""Whether this Python and its libraries can open what others wrote."""

from __future__ import annotations

import platform
import re
import sys
import warnings
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Final

from ..evaluator_schema.errors import EnvironmentMismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .manifest import Manifest

# A payload calls private functions of these by name, and they keep them within a major version.
_MAJOR_MATTERS: Final = frozenset({"cloudpickle", "torch", "pydantic", "rebind"})


class EnvironmentWarning(UserWarning):
    """A file was written with a later library than the one that opens it."""


def current_versions() -> dict[str, str]:
    """The versions that every manifest names."""
    return {
        "python": platform.python_version(),
        **{
            name: current_version(name) or "unknown"
            for name in ("rebind", "torch", "cloudpickle", "pydantic")
        },
    }


def check_environment(manifest: Manifest) -> None:
    """Check that this environment can open the payload.

    A declarative payload has no code, and none of this applies to it.

    Raises:
        EnvironmentMismatchError: As `check_versions`.

    Warns:
        EnvironmentWarning: As `check_versions`.
    """
    if manifest.payload == "pickle":
        fields = ", ".join(manifest.code_fields)
        check_versions(manifest.versions, manifest.python_implementation, of=f"The pickled code in {fields}")


def check_versions(versions: Mapping[str, str], implementation: str, *, of: str) -> None:
    """Check that code which was written with these versions runs here.

    Pickled code holds bytecode, which only the same minor version of the same Python understands:
    a function from Python 3.11 opens in 3.12 without complaint, and crashes the process when it is
    called.

    Args:
        versions: Of `python`, and of libraries.
        implementation: As in `sys.implementation.name`.
        of: What was written.

    Raises:
        EnvironmentMismatchError: Python's minor version differs, or the major version of a library
            that the payload calls by private names.

    Warns:
        EnvironmentWarning: A library here is older.
    """
    _check_python(versions.get("python", "?"), implementation, of)
    for library, written in versions.items():
        here = current_version(library)
        if library == "python" or here is None or _release(written) == _release(here):
            continue
        if library in _MAJOR_MATTERS and _release(written)[:1] != _release(here)[:1]:
            raise EnvironmentMismatchError(
                f"{of} was written with {library} {written}, and this is {library} {here}. "
                f"Install {library} {written}, or write it again with this one."
            )
        if _release(written) > _release(here):
            warnings.warn(
                f"{of} was written with {library} {written}, which is later than {here} "
                f"here; if it does not work, update {library}.",
                EnvironmentWarning,
                stacklevel=2,
            )


def _check_python(written: str, implementation: str, of: str) -> None:
    here = platform.python_version()
    if implementation == sys.implementation.name and _release(here) == _release(written):
        return
    raise EnvironmentMismatchError(
        f"{of} was written by {implementation} {written}, and only Python {_minor(written)} "
        f"can open it; this is {sys.implementation.name} {here}. Use Python {_minor(written)}, or write it "
        "again with this one."
    )


def current_version(library: str) -> str | None:
    """The version of a library here, without importing it; None if that cannot be told."""
    module = sys.modules.get(library)
    version = None if module is None else vars(module).get("__version__")
    return str(version) if isinstance(version, str) else _installed_version(library)


# Bounded, since the names come from strangers' manifests.
@lru_cache(maxsize=256)
def _installed_version(library: str) -> str | None:
    try:
        version: object = metadata.version(library)
    except (metadata.PackageNotFoundError, ValueError):  # not here, or no name of a library at all
        return None
    return version if isinstance(version, str) else None


@lru_cache(maxsize=256)
def _release(version: str) -> tuple[int, ...]:
    """Major and minor version: changes below them have broken nothing."""
    return tuple(int(part) for part in re.findall(r"\d{1,6}", version)[:2])


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
