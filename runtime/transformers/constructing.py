"""A fresh Trainer around a model, with nothing left in it of those before."""

from __future__ import annotations

import copy
from typing import Any

from torch.nn import Module

from ...evaluator_schema.build import build
from ...evaluator_schema.checking.signatures import name_of
from ...evaluator_schema.construction import Construction, replace_leaves
from ...evaluator_schema.errors import BindError, TrainingError
from ...evaluator_schema.transformers_evaluator import TransformersEvaluator
from ...evaluator_schema.values import ModuleHole, ParameterHole, ParametersHole, Ref

# What is shared by all trainings, as it would be by the user's own Trainers: it may be large.
_SHARED = ("train_dataset", "eval_dataset")
_REFERENCES = (Ref, ParameterHole, ParametersHole, ModuleHole)


def construct(
    evaluator: TransformersEvaluator,
    model: Module,
    *,
    max_steps: int | None = None,
    max_epochs: int | None = None,
) -> Any:
    """Construct the Trainer of an evaluator around a model.

    Traced arguments are constructed anew; all others but the data sets are copied. Checkpoints are saved only
    where the recorded arguments ask for them.

    Args:
        evaluator: The evaluator.
        model: The model.
        max_steps: Takes, with `max_epochs`, the place of the limits in the recorded arguments.
        max_epochs: Likewise.

    Raises:
        BindError: It cannot be constructed, or shards the model.
    """
    copies: dict[int, Any] = {}

    def fresh(leaf: Any) -> Any:
        return leaf if isinstance(leaf, _REFERENCES) else copy.deepcopy(leaf, copies)

    recorded = evaluator.trainer
    kwargs = {
        key: value if key in _SHARED and not isinstance(value, Construction) else replace_leaves(value, fresh)
        for key, value in recorded.kwargs.items()
    }
    kwargs["args"] = _limited(kwargs.get("args"), max_steps, max_epochs)
    spec = recorded.model_copy(update={"kwargs": kwargs})
    try:
        trainer = build([spec], _ModelFilling(model))[spec.order]
    except Exception as error:
        raise BindError(
            f"the recorded {name_of(spec.target)} cannot be constructed around this "
            f"{type(model).__name__}: {error}"
        ) from error
    _refuse_sharding(trainer)
    return trainer


def check_epochs_end(evaluator: TransformersEvaluator) -> None:
    """Make sure that the training data have a length: without one, a Trainer only counts steps.

    Raises:
        TrainingError: They have none.
    """
    data = evaluator.trainer.kwargs.get("train_dataset")
    made_by = data.target if isinstance(data, Construction) else type(data)
    if data is not None and isinstance(made_by, type) and not hasattr(made_by, "__len__"):
        raise TrainingError(
            f"{name_of(made_by)} has no length, so the Trainer cannot count epochs; limit the training by "
            "max_steps=, or give the training data a __len__"
        )


def _limited(args: Any, max_steps: int | None, max_epochs: int | None) -> Any:
    """Give arguments of a Trainer with these limits in the place of their own, and without checkpoints."""
    limits: dict[str, Any] = {}
    if max_steps is not None or max_epochs is not None:
        limits["max_steps"] = -1 if max_steps is None else max_steps
    if max_epochs is not None:
        limits["num_train_epochs"] = max_epochs
    if args is None:
        from transformers import TrainingArguments

        args = TrainingArguments("tmp_trainer")  # as the Trainer itself does
    if isinstance(args, Construction):
        saving = {} if _asks_for_checkpoints(args.kwargs) else {"save_strategy": "no"}
        return args.model_copy(update={"kwargs": {**args.kwargs, **saving, **limits}})
    for name, value in limits.items():
        setattr(args, name, value)
    return args


def _asks_for_checkpoints(told: dict[str, Any]) -> bool:
    # The default would write one at the end of each training.
    names = ("save_strategy", "save_steps", "load_best_model_at_end", "push_to_hub")
    return any(told.get(name) not in (None, False) for name in names)


def _refuse_sharding(trainer: Any) -> None:
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled or trainer.is_fsdp_xla_enabled:
        raise BindError(
            "the recorded arguments shard the parameters (FSDP or DeepSpeed), and the optimizers of bindings "
            "are built on whole ones; leave out fsdp= and deepspeed="
        )


class _ModelFilling:
    """What fills the holes in the construction of a Trainer: the model, and nothing else."""

    def __init__(self, model: Module) -> None:
        self._model = model

    def module(self, hole: ModuleHole) -> Module:
        return self._model if not hole.name else _refuse(hole)

    def parameter(self, hole: ParameterHole) -> Any:
        return _refuse(hole)

    def parameters(self, hole: ParametersHole) -> Any:
        return _refuse(hole)


def _refuse(hole: object) -> Any:
    raise BindError(f"a Trainer takes the whole model, and not {hole!r}")
