"""The version of the file format, and the numbers that every file of it obeys.

A file is a safetensors file::

    8 bytes       length of the header, little endian
    header        JSON, padded with spaces so that the data starts at a multiple of 64
                  {"__metadata__": {seal, signature, manifest}, name: {dtype, shape, data_offsets}}
    data          the entries, back to back, each a multiple of 64 bytes long

with these entries: one for each piece of tensor memory, `layout` (JSON: which tensor lies where) if
there is any, and `payload` (pickle streams, or the JSON of a declarative evaluator).

How to change the format:

1. Any change that an older rebind would not read, or would read wrongly, raises `FORMAT` by one.
   That includes a new field in the manifest or the layout: both refuse what they do not know.
2. Add the old number's reader where the parts differ; never drop one. `READABLE` lists them all.
3. Names that payloads refer to (`rebuild.py`) are never renamed. Modules of rebind that moved are
   entered in `pickling.MOVED_MODULES`.
4. Write a golden file of the new version with `python tests/golden/write_golden.py`, and leave the
   old ones: the tests open every golden file for ever.
"""

from __future__ import annotations

from typing import Final

FORMAT: Final = 1
READABLE: Final = frozenset({1})

# Cache lines and the widest vector registers; safetensors and torch align to it as well.
ALIGNMENT: Final = 64

# The header of 512 entries takes 300 kB. This bounds what a hostile one costs to parse: 0.85 s, 74 MiB.
MAX_HEADER_BYTES: Final = 2 << 20

# The same for the other JSON of a file; the layout of 300,000 tensors fits.
MAX_JSON_BYTES: Final = 16 << 20

# Nothing larger is opened unless the caller says so: a sparse file may claim terabytes for free,
# and verifying it would take hours.
MAX_FILE_BYTES: Final = 64 << 30

# Objects inside of objects, in any JSON of the file.
MAX_JSON_DEPTH: Final = 64

# Memory segments beyond this number share one entry (the smallest ones do), which keeps the header
# of an evaluator with 100,000 small tensors as lean as any other.
MAX_MEMORY_ENTRIES: Final = 512

# Tensors beyond this number are counted in the manifest, not listed.
MAX_LISTED_TENSORS: Final = 512

PAYLOAD: Final = "payload"
LAYOUT: Final = "layout"


def padding(length: int) -> int:
    """How many bytes `length` bytes lack to a multiple of the alignment."""
    return -length % ALIGNMENT
