"""The name under which a file of rebind goes to workers, wherever it lies.

Its header holds a digest of every byte that follows. So the header tells one file from every other,
and 1 GiB is named as fast as 1 KiB.
"""

from __future__ import annotations

import os
from pathlib import Path

from blake3 import blake3

_LENGTH_BYTES = 8  # of the header, as in every safetensors file: docs/file-format.md


def address(path: str | Path) -> str:
    """BLAKE3, in hexadecimal digits, of a file's header and size.

    Raises:
        OSError: There is no such file, or it cannot be read.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = file.read(_LENGTH_BYTES)
        header = file.read(min(int.from_bytes(length, "little"), size))
    return blake3(length + header + size.to_bytes(8, "little")).hexdigest()
