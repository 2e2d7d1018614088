"""Optimizer state at the side of its parameter: on the same device, of the same dtype, equally sharded."""

from __future__ import annotations

import sys
from typing import Any

import torch


def placed(value: torch.Tensor, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Copy a state tensor of one parameter for another, wherever that one is.

    What was on the device of the old parameter goes to that of the new one; what was elsewhere (step
    counters stay on the CPU) stays. The dtype follows in the same way, and so does FSDP's sharding.
    """
    value = value.detach()
    if not is_sharded(new):
        value = whole(value)
    device = new.device if value.device == old.device else value.device
    dtype = new.dtype if value.dtype == old.dtype else value.dtype
    copied = value.to(device=device, dtype=dtype, copy=True)
    if is_sharded(new) and not is_sharded(copied) and copied.shape == new.shape:
        return _sharded(copied, new)
    return copied


def whole(value: torch.Tensor) -> torch.Tensor:
    """Give a tensor with the shards of all processes, which all have to ask for it; any other as it is."""
    return value.full_tensor() if is_sharded(value) else value  # type: ignore[attr-defined]  # DTensor's


def is_sharded(value: torch.Tensor) -> bool:
    """Tell whether a tensor is a `DTensor`, of which this process has a part."""
    # Importing it takes half a second, and no tensor is sharded before somebody has.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def _sharded(value: torch.Tensor, like: Any) -> torch.Tensor:
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements)
