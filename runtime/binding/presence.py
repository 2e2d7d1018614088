"""Whether optimizers still train what the model consists of, once a training function has had it in hand."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from torch.nn import Module, Parameter
from torch.optim import Optimizer

from ...evaluator_schema.errors import TrainingError

_log = logging.getLogger("rebind")


class Presence:
    """The parameters of a model that its optimizers have when a training begins.

    A training function may put others in their place (`fully_shard` does, and `weight_norm`). Optimizers do
    not see that, and would go on with what the model no longer has, in silence. A function that also puts the
    new ones into the optimizer's groups knows what it does.

    Args:
        model: The model.
        optimizers: Its optimizers.
    """

    def __init__(self, model: Module, optimizers: Iterable[Optimizer]) -> None:
        self._model = model
        present = set(map(id, model.parameters()))
        self._held: dict[int, list[Parameter]] = {
            id(optimizer): [
                parameter
                for group in optimizer.param_groups
                for parameter in group["params"]
                if id(parameter) in present
            ]
            for optimizer in optimizers
        }

    def check(self, optimizer: Optimizer) -> None:
        """Look once, when an optimizer is about to make its first step.

        Raises:
            TrainingError: The model has none of its parameters any more.
        """
        held = self._held.pop(id(optimizer), None)
        if not held:
            return
        present = set(map(id, self._model.parameters()))
        has = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        replaced = [id(parameter) for parameter in held if id(parameter) not in present]
        kind = type(optimizer).__name__
        if len(replaced) == len(held) and has.isdisjoint(present):
            raise TrainingError(
                f"training_func replaced all {len(held)} parameters of the model that this {kind} has, so "
                "its steps would change nothing (fully_shard does that, and weight_norm); do it to the model "
                "first, and bind what it has become: its optimizers are then built on the new parameters; or "
                "let training_func put the new ones into the param_groups"
            )
        if lost := len(has.intersection(replaced)):
            _log.warning(
                "training_func replaced %d of the %d parameters of the model that this %s has, and the new "
                "ones do not train; do it to the model first, and bind what it has become",
                lost,
                len(held),
                kind,
            )
