"""An example input from a module or its data, for those who trace the model's graph."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ...evaluator_schema.errors import BindError
from ...evaluator_schema.lightning_kinds import Package


def sample_input(package: Package, module: Any, data_module: Any) -> Any:
    """Give the inputs of one batch, without what is not an input.

    The module's `example_input_array` comes first. Then comes a batch of the `predict_dataloader`, which is
    what `forward` gets; then as much of a training batch as `forward` has arguments for.

    Raises:
        BindError: There is no batch, or it does not tell what of it is an input.
    """
    if module.example_input_array is not None:
        return module.example_input_array
    helpers = import_module(f"{package}.utilities.model_helpers")
    predicts = helpers.is_overridden("predict_dataloader", data_module)
    predicts = predicts and not helpers.is_overridden("predict_step", module)
    data_module.prepare_data()
    data_module.setup("predict" if predicts else "fit")
    try:
        loader = data_module.predict_dataloader() if predicts else data_module.train_dataloader()
        batch = next(iter(next(iter(loader.values())) if isinstance(loader, Mapping) else loader), None)
    finally:
        data_module.teardown("predict" if predicts else "fit")
    if batch is None:
        raise BindError(f"{type(data_module).__name__} gives no batch; pass dummy_input= to the evaluator")
    return batch if predicts else inputs_of(batch, module)


def inputs_of(batch: Any, module: Any) -> Any:
    """Take from a batch what `forward` of a module takes."""
    parameters = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    required = [parameter for parameter in parameters if parameter.default is inspect.Parameter.empty]
    if isinstance(batch, Mapping):
        named = {parameter.name: batch[parameter.name] for parameter in parameters if parameter.name in batch}
        return named or batch
    if not isinstance(batch, list | tuple) or hasattr(batch, "_fields"):
        return batch
    count = max(1, len(required))
    if count > len(batch):
        raise BindError(
            f"forward of {type(module).__name__} takes {count} arguments, and a batch has {len(batch)} "
            "parts; pass dummy_input= to the evaluator"
        )
    return batch[0] if count == 1 else tuple(batch[:count])
