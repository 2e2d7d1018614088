"""Taking a trainer off a module again: Lightning leaves references and compiled methods behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn import Module

from ...evaluator_schema.lightning_kinds import package_of
from ..binding.devices import device_of

# What Lightning writes into a module while it trains. The methods are those that torch.compile covers.
_WRITTEN = (
    "_trainer",
    "_fabric",
    "_fabric_optimizers",
    "_current_fx_name",
    "_metric_attributes",
    "_param_requires_grad_state",
    "_compiler_ctx",
    "_device_mesh",
    "_strict_loading",
    "_log_hyperparams",
    "_hparams",
    "configure_optimizers",
    "forward",
    "training_step",
    "validation_step",
    "test_step",
    "predict_step",
)
_ABSENT = object()


@contextmanager
def without_residue(model: Module) -> Iterator[None]:
    """Leave in a model's modules nothing of the trainers that they meet in the block.

    A trainer also leaves the model on the CPU, whatever device it was on before; it comes back there.
    """
    device = device_of(model)
    modules = [module for module in model.modules() if package_of(type(module), "LightningModule")]
    before = [{name: vars(module).get(name, _ABSENT) for name in _WRITTEN} for module in modules]
    devices = [vars(module).get("_device") for module in modules]
    try:
        yield
    finally:
        for module, held in zip(modules, before, strict=True):
            for name, value in held.items():
                if value is _ABSENT:
                    vars(module).pop(name, None)
                else:
                    vars(module)[name] = value
        if device_of(model) != device:
            model.to(device)
        for module, known in zip(modules, devices, strict=True):
            if module._device == known:  # the attribute is an object of its own after each fit
                vars(module)["_device"] = known
