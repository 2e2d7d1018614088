"""Moving an example input to where a model is."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch.nn import Module

from ...evaluator_schema.values import map_container


def device_of(model: Module) -> torch.device:
    """Give the device of a model's first parameter or buffer; the CPU if it has none."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


def moved(value: Any, device: torch.device) -> Any:
    """Copy any nesting of tensors to a device; what is there already stays the same object."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    return map_container(value, lambda item: moved(item, device))
