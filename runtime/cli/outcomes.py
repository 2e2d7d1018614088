"""How a command ends: its exit code, and one readable message instead of a traceback."""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

from .colour import show_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DONE, NEGATIVE, USAGE, REFUSED, FAILED, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 3, 4, 130, 141

CODES: Final = {
    DONE: "done",
    NEGATIVE: "done, and the answer is no: a trial failed, or the files differ",
    USAGE: "the command line is wrong",
    REFUSED: "a file is damaged, not signed with the key, not trusted, or cannot be opened here",
    FAILED: "something else went wrong: a missing file, a bad key, a model that cannot be imported",
    INTERRUPTED: "interrupted",
}


def outcome(command: Callable[[], int]) -> int:
    """Run a command, and turn whatever it raises into a message on standard error and an exit code."""
    # As the shell that started us has it, and as long as nobody asks for all of them.
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = command()
            sys.stdout.flush()
        except KeyboardInterrupt:
            complain("interrupted")
            return INTERRUPTED
        except BrokenPipeError:
            # Whoever read our output has enough; at exit, Python would flush it once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
        except Exception as error:  # noqa: BLE001 - nobody is above this who could handle it
            complain(*_told(error))
            return _code_of(error)
        return code


def complain(*lines: str) -> None:
    """Write a message to standard error, with terminal codes shown and not obeyed."""
    from ...serialization.tree import printable

    first, *rest = "\n".join(lines).splitlines() or [""]
    told = "\n".join([f"rebind: {printable(first)}", *(f"  {printable(line)}" for line in rest)])
    show_text(told, {r"\Arebind:(?= warning:)": "yellow", r"\Arebind:(?! warning:)": "bold red"}, sys.stderr)


def print_json(value: Any) -> None:
    """Write a JSON value to standard output; in ASCII, so that no terminal code gets through."""
    print(json.dumps(value, indent=2))


def _told(error: Exception) -> Iterator[str]:
    from ...evaluator_schema.errors import RebindError

    if isinstance(error, RebindError):
        yield f"{type(error).__name__}: {error}"
    elif isinstance(error, OSError) and error.filename is not None:
        yield f"{os.fsdecode(error.filename)}: {error.strerror}"
    else:
        yield f"{type(error).__name__}: {error}"
    yield from getattr(error, "__notes__", ())


def _code_of(error: Exception) -> int:
    from ...evaluator_schema.errors import InvalidKeyError, SaveError, SerializationError

    if isinstance(error, SerializationError) and not isinstance(error, (InvalidKeyError, SaveError)):
        return REFUSED
    return FAILED


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    complain(f"warning: {message}")
