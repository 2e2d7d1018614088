"""The names that a pickle looks up: recorded when it is written, looked for before it is opened."""

from __future__ import annotations

import pickletools
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final

from ..evaluator_schema.errors import MissingModuleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# cloudpickle refers to a module by a call of one of these with the module's name.
_IMPORTERS: Final = frozenset({"cloudpickle.cloudpickle:subimport"})
_STRINGS: Final = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_GETS: Final = frozenset({"BINGET", "LONG_BINGET", "GET"})


class ImportRecorder:
    """Reads pickle streams of one pickler, which share a memo, and tells what each looks up."""

    def __init__(self) -> None:
        self._memo: list[str | None] = []

    def record(self, stream: bytes) -> tuple[str, ...]:
        """All names (`module:qualname`, or a bare module) that this stream looks up first.

        The opcodes are read, not run. Of the stack only the two newest strings are known, which is
        where a pickler puts the module and the name that it is about to look up.
        """
        found: dict[str, None] = {}
        memo = self._memo
        older: str | None = None
        newest: str | None = None
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name == "MEMOIZE":
                memo.append(newest)
            elif name in _STRINGS:
                older, newest = newest, argument
            elif name in _GETS:
                older, newest = newest, memo[int(argument or 0)]
            elif name == "STACK_GLOBAL":
                older, newest = None, f"{older}:{newest}"
                found[newest] = None
            elif name == "TUPLE1" and older in _IMPORTERS and newest:
                found[newest] = None
                older, newest = None, None
            elif name not in {"FRAME", "PROTO"}:
                older, newest = None, None
        return tuple(found)


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """The versions of the packages that these names come from, as far as they tell them."""
    versions = {}
    for package in sorted({name.partition(":")[0].partition(".")[0] for name in names}):
        # Not by `getattr`: some packages warn or compute when they are asked.
        version = vars(sys.modules[package]).get("__version__") if package in sys.modules else None
        if isinstance(version, str):
            versions[package] = str(version)
    return versions


def check_imports(imports: Mapping[str, Iterable[str]]) -> None:
    """Import what the payload will look up, and tell everything that is missing at once.

    Args:
        imports: For each field, the names (`module:qualname`, or a bare module).

    Raises:
        MissingModuleError: Naming the modules and names, and the fields that need them.
    """
    problems = {
        name: (problem, field)
        for field, names in imports.items()
        for name in names
        if (problem := _problem(name))
    }
    if problems:
        raise MissingModuleError(missing_message(problems.values()))


def missing_message(problems: Iterable[tuple[str, str]]) -> str:
    """What to say about missing names: pairs of the problem and the field that needs the name."""
    lines = dict.fromkeys(f"{problem} (needed by {field})" for problem, field in problems)
    return (
        f"The payload needs what is not here: {'; '.join(lines)}. Install it, or put its folder on "
        "PYTHONPATH; or write the file again with the code inside of it, by calling "
        "cloudpickle.register_pickle_by_value(module) before."
    )


def _problem(name: str) -> str | None:
    from .pickling import moved

    module, _, qualname = name.partition(":")
    module = moved(module)
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as error:
        return f"there is no module {error.name or module!r}"
    except Exception as error:  # noqa: BLE001 - a module may raise anything while it is imported
        return f"module {module!r} cannot be imported, {type(error).__name__}: {error}"
    try:
        for part in filter(None, qualname.split(".")):
            found = getattr(found, part)
    except Exception:  # noqa: BLE001 - a module may compute its names, and raise anything
        return f"module {module!r} has no {qualname!r}"
    return None
