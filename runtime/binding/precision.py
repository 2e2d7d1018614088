"""Evaluations in another precision, after which a model has its own weights again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import Module


@contextmanager
def keeping_precision(model: Module) -> Iterator[None]:
    """Put back the tensors of a model that are cast in the block.

    A Trainer with `bf16_full_eval` and Lightning with `precision="bf16-true"` cast the model itself, with its
    gradients and buffers, for an evaluation too, and leave it so: its weights would stay rounded.
    """
    held: list[tuple[torch.Tensor, torch.Tensor]] = []
    for parameter in model.parameters():
        held.append((parameter, parameter.data))
        if parameter.grad is not None:
            held.append((parameter.grad, parameter.grad.data))
    buffers = [
        (module._buffers, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    told = [(vars(module), vars(module)["_dtype"]) for module in model.modules() if "_dtype" in vars(module)]
    try:
        yield
    finally:
        for tensor, data in held:
            if tensor.dtype != data.dtype:
                tensor.data = data
        for own, name, buffer in buffers:
            now = own.get(name)
            if now is not None and now.dtype != buffer.dtype:
                own[name] = buffer
        for attributes, dtype in told:  # where a LightningModule says which one it has
            attributes["_dtype"] = dtype
