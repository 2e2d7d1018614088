"""`rebind inspect`: what a file holds, and whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...serialization import examine
from .colour import show_text
from .keys import keys_of
from .outcomes import DONE, REFUSED, complain, print_json

if TYPE_CHECKING:
    from argparse import Namespace

    from ...serialization import Examination

_STYLES = {
    r"\A.*": "bold",
    r"(?m)^[│ ]*[├└]── ": "dim",
    r"(?m)(?<=, )whole$": "green",
    r"(?m)(?<=^├── signature: ).*, verified$": "green",
    r"(?m)(?<=, )(changed|cut off)$": "red",
    r"(?ms)^└── problems\n.*": "red",
}


def command(options: Namespace) -> int:
    """Tell what can be told of a file, damaged or not."""
    found = examine(options.file, keys_of(options), verify_digests=not options.quick)
    if options.json:
        print_json(found.model_dump(mode="json"))
    else:
        show_text(str(found), _STYLES)
    return ended(options.file, found)


def ended(file: str, found: Examination) -> int:
    """The exit code for what was found, with every problem on standard error."""
    for problem in found.problems:
        complain(f"{file}: {problem.error}: {problem.message}")
    return REFUSED if found.problems else DONE
