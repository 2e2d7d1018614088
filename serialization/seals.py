"""Files in memory that the kernel keeps as they were written: sealed ones, on Linux (memfd_create(2))."""

from __future__ import annotations

import os
from typing import IO, Literal, TypeAlias

try:
    import fcntl
except ImportError:  # pragma: no cover - not on this system
    fcntl = None  # type: ignore[assignment]

VerifyTensors: TypeAlias = bool | Literal["unless sealed"]

_BUFFER_BYTES = 1 << 20


def memory_file() -> IO[bytes] | None:
    """A new empty file in memory that can be sealed; None where the system has none."""
    if not hasattr(os, "memfd_create") or not hasattr(fcntl, "F_ADD_SEALS"):
        return None
    try:
        descriptor = os.memfd_create("rebind", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:  # the system is set up to refuse them
        return None
    return os.fdopen(descriptor, "w+b", buffering=_BUFFER_BYTES)


def seal(file: IO[bytes]) -> None:
    """Have the kernel refuse every further change of a memory file, whoever asks for it.

    Raises:
        OSError: Somebody has it mapped to write to it.
    """
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _seals() | fcntl.F_SEAL_SEAL)


def must_verify(descriptor: int, wanted: VerifyTensors) -> bool:
    """Whether the tensors of an open file have to be verified."""
    return not is_sealed(descriptor) if wanted == "unless sealed" else wanted


def is_sealed(descriptor: int) -> bool:
    """Whether the kernel refuses every change of this file. Most files cannot even be asked."""
    if not hasattr(fcntl, "F_GET_SEALS"):
        return False
    try:
        return fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _seals() == _seals()
    except OSError:
        return False


def _seals() -> int:
    return fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
