"""Training modes that outlive an evaluation in the midst of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn import Module


@contextmanager
def keeping_modes(model: Module) -> Iterator[None]:
    """Put every module back into its training mode at the end of the block."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        if model.training != modes[0][1]:
            model.train(modes[0][1])  # an exported model changes its graph here, and has no modes within
        for module, training in modes:
            module.training = training
