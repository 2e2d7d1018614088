"""A fresh trainer and data module, with nothing left in them of those before."""

from __future__ import annotations

import copy
import inspect
from importlib import import_module
from typing import Any

from ...evaluator_schema.build import build
from ...evaluator_schema.checking.signatures import name_of, signature_of
from ...evaluator_schema.construction import Construction, all_constructions, replace_leaves, values_of
from ...evaluator_schema.errors import TrainingError
from ...evaluator_schema.lightning_evaluator import LightningEvaluator
from ...evaluator_schema.lightning_kinds import Package, package_of
from ...evaluator_schema.values import ModuleHole, ParameterHole, ParametersHole, Ref


def construct(evaluator: LightningEvaluator) -> tuple[Any, Any]:
    """Construct the trainer and the data module of an evaluator.

    Traced arguments are constructed anew, all others are copied. Files are written only where the recorded
    call asks for it: a trainer that was given no `logger` logs to nowhere, and one without a checkpoint
    callback and `enable_checkpointing` saves none.
    """
    copies: dict[int, Any] = {}

    def fresh(leaf: Any) -> Any:
        return leaf if isinstance(leaf, _REFERENCES) else copy.deepcopy(leaf, copies)

    trainer_spec, data_spec = replace_leaves([evaluator.trainer, evaluator.data_module], fresh)
    specs = [_without_files(trainer_spec), data_spec]
    built = build(specs, _NoFilling())
    trainer, data_module = (built[spec.order] for spec in specs)
    for value, base in ((trainer, "Trainer"), (data_module, "LightningDataModule")):
        if package_of(type(value), base) is None:
            raise TrainingError(f"the evaluator should construct a {base}, and gave a {type(value).__name__}")
    return trainer, data_module


_REFERENCES = (Ref, ParameterHole, ParametersHole, ModuleHole)


def _without_files(spec: Construction) -> Construction:
    package = package_of(spec.target, "Trainer")
    if package is None or spec.kwargs.get("barebones"):  # a function of the user's, which has its own say
        return spec
    signature = signature_of(spec.target)
    takes = {} if signature is None else signature.parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in takes.values()):
        takes_logger, takes_checkpoints = "logger" in takes, "enable_checkpointing" in takes
    else:
        takes_logger = takes_checkpoints = True
    added: dict[str, Any] = {}
    if takes_logger and spec.kwargs.get("logger") is None:
        # Not False: the module may use `self.logger`, and LearningRateMonitor wants one.
        added["logger"] = _silent_logger(package)
    if takes_checkpoints and spec.kwargs.get("enable_checkpointing") is None and not _has_checkpoints(spec):
        added["enable_checkpointing"] = False
    return spec.model_copy(update={"kwargs": {**spec.kwargs, **added}})


def _silent_logger(package: Package) -> Any:
    return import_module(f"{package}.loggers.logger").DummyLogger()


def _has_checkpoints(spec: Construction) -> bool:
    inner = [found.target for found in all_constructions([spec.args, spec.kwargs])]
    plain = [type(leaf) for _, leaf in values_of(spec)]
    return any(package_of(kind, "Checkpoint") is not None for kind in (*inner, *plain))


class _NoFilling:
    """What fills the holes where there is no model: nothing does."""

    def parameter(self, hole: ParameterHole) -> Any:
        return _refuse(hole)

    def parameters(self, hole: ParametersHole) -> Any:
        return _refuse(hole)

    def module(self, hole: ModuleHole) -> Any:
        return _refuse(hole)


def _refuse(hole: object) -> Any:
    raise TrainingError(f"a trainer or data module cannot take {name_of(hole)}, a part of the model")
