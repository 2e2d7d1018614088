"""Training modes: of modules, and of the graphs that `torch.export` makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.nn import Module

# Where an exported model that was allowed to switch (`allow_exported_model_train_eval`) says what it is.
_SWITCHED = "_exported_training"


def exported_mode(module: Module) -> bool | None:
    """Tell whether an exported model is in training mode; None where it is none, or was never switched.

    Its mode is in its graph (batch norm, dropout), and its `training` does not tell.
    """
    mode: bool | None = module.__dict__.get(_SWITCHED)
    return mode


def exported_modes(modules: Iterable[Module]) -> list[tuple[Module, bool]]:
    """List the exported models among modules that were switched, with their modes."""
    return [(module, mode) for module in modules if (mode := exported_mode(module)) is not None]


def switch(module: Module, mode: bool) -> None:  # noqa: FBT001 - as torch's own `train`
    """Put an exported model into a mode."""
    if exported_mode(module) != mode:
        module.train(mode)


@contextmanager
def keeping_modes(model: Module) -> Iterator[None]:
    """Put every module back into its training mode at the end of the block."""
    modes = [(module, module.training) for module in model.modules()]
    exported = exported_modes(model.modules())
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, mode in exported:
            switch(module, mode)
