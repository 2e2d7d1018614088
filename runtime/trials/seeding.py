"""The seed of a trial, and the generators of random numbers that it sets."""

from __future__ import annotations

import random
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

try:
    # Not only where it is imported already: what a process happens to have imported must not decide
    # whether a trial in it is seeded.
    import numpy as np
except ImportError:  # pragma: no cover - torch works without
    np = None  # type: ignore[assignment]

_NUMPY_SEEDS = 1 << 32


def trial_seed(seed: int, name: str) -> int:
    """The seed of one trial, from its run's seed and its own name alone.

    So it depends neither on the other trials nor on the order, the worker or the pool.
    """
    digest = blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # what torch takes without a sign


def seed_everything(seed: int) -> None:
    """Seed torch (on all devices), numpy's global generator and `random`."""
    if torch.accelerator.current_accelerator() is None:
        torch.default_generator.manual_seed(seed)  # what is left of manual_seed, 100 times as fast
    else:
        torch.manual_seed(seed)
    random.seed(seed)
    if np is not None:
        np.random.seed(seed % _NUMPY_SEEDS)


def random_state() -> dict[str, Any]:
    """Give the states of all generators: torch's on every device, numpy's global one, and `random`'s."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if _uses_cuda() else None,
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False) if np is not None else None,
    }


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch does not annotate it


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put all generators into the states that `random_state` gave."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["numpy"] is not None and np is not None:
        np.random.set_state(state["numpy"])


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put all generators back as they were, in whatever state the block leaves them."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
