"""`rebind verify`: whether a file is whole and signed with a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...serialization import examine
from ...serialization.tree import printable
from .colour import show_text
from .inspect import ended
from .keys import keys_of
from .outcomes import USAGE, complain, print_json

if TYPE_CHECKING:
    from argparse import Namespace


def command(options: Namespace) -> int:
    """Verify a file, without opening it."""
    keys = keys_of(options)
    if keys is None:
        complain("verify needs a key: --key-file K, or --key-env VAR")
        return USAGE
    found = examine(options.file, keys)
    if options.json:
        print_json(found.model_dump(mode="json"))
    elif not found.problems:
        show_text(printable(f"{options.file}: whole, {found.signature}"), {"(?<=: )whole.*": "green"})
    return ended(options.file, found)
