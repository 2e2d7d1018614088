"""Evaluations in half precision, after which a model has its own weights again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Module


@contextmanager
def precision_kept(model: Module, args: Any) -> Iterator[None]:
    """Put back the tensors that `fp16_full_eval` and `bf16_full_eval` round for good.

    `Trainer.evaluate` casts the model itself then, its gradients and buffers too, and leaves it so.

    Args:
        model: The model that is evaluated in the block.
        args: The `TrainingArguments`.
    """
    if not (args.fp16_full_eval or args.bf16_full_eval):
        yield
        return
    held: list[tuple[torch.Tensor, torch.Tensor]] = []
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules()]
    for parameter in model.parameters():
        held.append((parameter, parameter.data))
        if parameter.grad is not None:
            held.append((parameter.grad, parameter.grad.data))
    try:
        yield
    finally:
        for tensor, data in held:
            tensor.data = data
        for now, before in buffers:
            now.update(before)
