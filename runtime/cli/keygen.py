"""`rebind keygen`: a signing key in a new file."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from ...serialization import SigningKey
from .outcomes import DONE, print_json

if TYPE_CHECKING:
    from argparse import Namespace


def command(options: Namespace) -> int:
    """Make a key. What is told is its name and place, never the secret."""
    key = SigningKey.generate(f"key-{secrets.token_hex(4)}" if options.id is None else options.id)
    key.to_file(options.key_file)
    if options.json:
        print_json({"key_file": options.key_file, "id": key.id})
    else:
        print(f"{options.key_file}: the signing key {key.id!r}, readable by you only")
    return DONE
