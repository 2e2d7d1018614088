"""Keys from files and environment variables, as the options of a command name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...serialization import SigningKey

if TYPE_CHECKING:
    from argparse import Namespace


def keys_of(options: Namespace) -> list[SigningKey] | None:
    """The keys of `--key-file` and `--key-env`, or None where there is none.

    Raises:
        OSError: A key's file cannot be read.
        InvalidKeyError: What it holds is no key; its content is not told.
    """
    keys = [
        *map(SigningKey.from_file, options.key_files),
        *map(SigningKey.from_env, options.key_variables),
    ]
    return keys or None
