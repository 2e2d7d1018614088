"""The names that a pickle looks up: recorded when it is written, looked for before it is opened."""

from __future__ import annotations

import pickle
import pickletools
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..evaluator_schema.errors import MissingModuleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# cloudpickle refers to a module by a call of one of these with the module's name.
_IMPORTERS: Final = frozenset({"cloudpickle.cloudpickle:subimport"})

# The size of each opcode's argument in bytes, for the binary protocols; a negative one is that of a
# length before the argument. pickletools.genops reads the same, and slowly: each save of a small file
# would spend a fifth of its time there.
_LENGTH_BYTES: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: -1,
    pickletools.TAKEN_FROM_ARGUMENT4: -4,
    pickletools.TAKEN_FROM_ARGUMENT4U: -4,
    pickletools.TAKEN_FROM_ARGUMENT8U: -8,
}
_ARGUMENT_BYTES: Final = {
    ord(opcode.code): _LENGTH_BYTES.get(opcode.arg.n, opcode.arg.n) if opcode.arg else 0
    for opcode in pickletools.opcodes
    if opcode.arg is None or opcode.arg.n != pickletools.UP_TO_NEWLINE
}
_MEMOIZE, _STACK_GLOBAL, _TUPLE1, *_SILENT = (
    pickle.MEMOIZE + pickle.STACK_GLOBAL + pickle.TUPLE1 + pickle.FRAME + pickle.PROTO
)
_STRINGS: Final = frozenset(pickle.SHORT_BINUNICODE + pickle.BINUNICODE + pickle.BINUNICODE8)
_GETS: Final = frozenset(pickle.BINGET + pickle.LONG_BINGET)


class ImportRecorder:
    """Reads pickle streams of one pickler, which share a memo, and tells what each looks up."""

    def __init__(self) -> None:
        self._memo: list[bytes | str | None] = []

    def record(self, stream: bytes) -> tuple[str, ...]:
        """All names (`module:qualname`, or a bare module) that this stream looks up first.

        The opcodes are read, not run. Of the stack only the two newest strings are known, which is
        where a pickler puts the module and the name that it is about to look up.
        """
        found: dict[str, None] = {}
        memo = self._memo
        older: bytes | str | None = None  # what was read as text is bytes, and what was looked up a string
        newest: bytes | str | None = None
        at, end = 0, len(stream)
        while at < end:
            code = stream[at]
            size = _ARGUMENT_BYTES[code]
            start = at + 1
            if size < 0:
                length = start - size
                size = int.from_bytes(stream[start:length], "little")
                start = length
            at = start + size
            if code == _MEMOIZE:
                memo.append(newest)
            elif code in _STRINGS:
                older, newest = newest, stream[start:at]
            elif code in _GETS:
                older, newest = newest, memo[int.from_bytes(stream[start:at], "little")]
            elif code == _STACK_GLOBAL:
                older, newest = None, f"{_text(older)}:{_text(newest)}"
                found[newest] = None
            elif code == _TUPLE1 and older in _IMPORTERS and newest:
                found[_text(newest)] = None
                older, newest = None, None
            elif code not in _SILENT:
                older, newest = None, None
        return tuple(found)


def _text(value: bytes | str | None) -> str:
    return str(value, "utf-8", "surrogatepass") if isinstance(value, bytes) else str(value)


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


def look_up(name: str, *, needed_by: str) -> Any:
    """What a name (`module:qualname`) stands for.

    Raises:
        MissingModuleError: It is not here; the message names `needed_by`.
    """
    found, problem = _looked_up(name)
    if problem is not None:
        raise MissingModuleError(missing_message([(problem, needed_by)]))
    return found


def _problem(name: str) -> str | None:
    return _looked_up(name)[1]


def _looked_up(name: str) -> tuple[Any, str | None]:
    """What a name stands for, or what is wrong with it."""
    from .pickling import moved

    module, _, qualname = name.partition(":")
    module = moved(module)
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        return None, f"there is no module {error.name or module!r}"
    except Exception as error:  # noqa: BLE001 - a module may raise anything while it is imported
        return None, f"module {module!r} cannot be imported, {type(error).__name__}: {error}"
    try:
        for part in filter(None, qualname.split(".")):
            found = getattr(found, part)
    except Exception:  # noqa: BLE001 - a module may compute its names, and raise anything
        return None, f"module {module!r} has no {qualname!r}"
    return found, None
