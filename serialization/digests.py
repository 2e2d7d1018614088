"""BLAKE3 digests of what a file holds.

BLAKE3 because it is the fastest cryptographic digest at hand: 1 GiB takes 150 ms on one thread and
81 ms on two, where SHA-256 takes 579 ms and BLAKE2b 854 ms. Reading 1 GiB from a page cache takes
about 100 ms, so that verification costs as much as looking at the bytes at all. Faster sums (xxh3)
can be forged, and then a signature over them would protect nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_DIGEST: Final = "0" * 64

# Below this, starting threads costs more than they save.
THREADED_FROM_BYTES: Final = 4 << 20
_MOST_THREADS: Final = 4


def digest(chunks: Iterable[bytes | memoryview], *, threads: bool = True) -> str:
    """The digest of the bytes of all chunks in order, as 64 hexadecimal digits."""
    if threads:
        chunks = list(chunks)
        threads = sum(map(len, chunks)) >= THREADED_FROM_BYTES
    # A number, never blake3.AUTO: that would use one pool of threads for the whole process, which
    # is dead in a forked child and would let it hang.
    hasher = blake3(max_threads=_usable_cores() if threads else 1)
    for piece in chunks:
        hasher.update(piece)
    return hasher.hexdigest()


def _usable_cores() -> int:
    return max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0))))
