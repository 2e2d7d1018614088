"""CUDA devices, leased to trials so that each has its own."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch

from ...evaluator_schema.errors import TrialError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..pools import Pool

_OWN: ContextVar[tuple[int, ...]] = ContextVar("trial_devices", default=())


class Leases:
    """Lends devices out and takes them back. No device is touched.

    Args:
        devices: The indices of the devices that there are.
        shared: Whether all workers share these devices. Otherwise each worker has such devices of
            its own, whoever else has the same numbers.
    """

    def __init__(self, devices: Iterable[int], *, shared: bool = True) -> None:
        self._free = sorted(devices)
        self._lent: set[int] = set()
        self._shared = shared

    def take(self, count: int) -> tuple[int, ...] | None:
        """Lend the free devices with the lowest numbers; None where so many are not free."""
        if count > len(self._free):
            return None
        taken = tuple(self._free[:count])
        if self._shared:
            del self._free[:count]
            self._lent.update(taken)
        return taken

    def give(self, devices: tuple[int, ...]) -> None:
        """Take devices back."""
        if not self._shared:
            return
        if not self._lent.issuperset(devices):
            raise ValueError(f"devices {devices} are not all lent")
        self._lent.difference_update(devices)
        self._free = sorted([*self._free, *devices])


def leases_for(pool: Pool, count: int) -> Leases:
    """The devices for the trials of a run.

    The workers of a pool on this machine share its devices. Elsewhere, the engine has given each
    worker devices of its own by `CUDA_VISIBLE_DEVICES`, and they count from 0 there.

    Args:
        pool: Where the trials run.
        count: How many devices each trial needs.

    Raises:
        TrialError: There are fewer than one trial needs.
    """
    if not count:
        return Leases(())
    if not pool.on_this_machine:
        return Leases(range(count), shared=False)
    there = torch.cuda.device_count()
    if there < count:
        raise TrialError(
            f"gpus_per_trial is {count}, and this machine has {there} CUDA devices. Ask for fewer, or use "
            "a pool on machines that have them"
        )
    return Leases(range(there))


def trial_devices() -> tuple[torch.device, ...]:
    """The CUDA devices that the trial running here has to itself; none without a lease."""
    return tuple(torch.device("cuda", index) for index in _OWN.get())


@contextmanager
def trial_devices_set(indices: Iterable[int]) -> Iterator[None]:
    """Make these the devices of the trial in the block; the first is the one that CUDA calls go to.

    Raises:
        TrialError: This process does not have them.
    """
    own = tuple(indices)
    if not own:
        yield
        return
    there = torch.cuda.device_count()
    if max(own) >= there:
        raise TrialError(f"the trial was given CUDA devices {own}, and its worker sees {there} of them")
    token = _OWN.set(own)
    try:
        with torch.cuda.device(own[0]):
            yield
    finally:
        _OWN.reset(token)
