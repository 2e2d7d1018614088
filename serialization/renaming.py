"""A new file under the name of an old one, at one moment, and without a wait for the disk.

ext4 begins to write a file out when it is renamed over another one, and others do likewise: a rename of
1 GiB that nobody wants on disk yet takes as long as the disk does. Two names that trade places do not
have that effect.
"""

from __future__ import annotations

import ctypes
import os
import stat
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# From the system's headers: paths are relative to the working folder, and both names stay.
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


def replace(name: str, target: str) -> None:
    """Give the file `name` the name `target`; what was there goes. Whoever opens it finds one or the other.

    Raises:
        OSError: It cannot be done. `target` is untouched.
    """
    if _is_file(target) and _trade_places(name, target):
        with suppress(OSError):  # the new one has its name whatever becomes of the old one
            os.unlink(name)  # noqa: PTH108 - paths are strings here
    else:
        os.replace(name, target)  # noqa: PTH105 - likewise


def _is_file(path: str) -> bool:
    """Whether there is something that may be replaced: a folder would trade places as well."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _trade_places(one: str, other: str) -> bool:
    """Let two files have each other's name; False where the system or the file system cannot."""
    call = _renameat2()
    names = os.fsencode(one), os.fsencode(other)
    return call is not None and not call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)


@lru_cache(1)
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        call = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):  # another system, or an old C library
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    call.restype = ctypes.c_int
    found: Callable[[int, bytes, int, bytes, int], int] = call
    return found
