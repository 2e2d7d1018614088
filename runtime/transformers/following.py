"""The callback through which a binding follows a Trainer."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..binding.framework import Training
from ..binding.trainer_budget import TrainerBudget


def following(training: Training, budget: TrainerBudget) -> Any:
    """Make a callback: epochs, the end of the budget, and the gradients of what the model does not hold."""
    return _callback_class()(training, budget)


@cache
def _callback_class() -> type:
    """Make the class, once transformers is needed."""
    from transformers import TrainerCallback

    class Following(TrainerCallback):  # type: ignore[misc,unused-ignore]  # where it is not installed
        """Calls what belongs to a binding at the Trainer's own hook points."""

        def __init__(self, training: Training, budget: TrainerBudget) -> None:
            self._training = training
            self._budget = budget
            self._epochs = 0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            """Begin without gradients, as the Trainer does for what the model holds."""
            self._zero_gradients()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - as its caller calls it
            """End the training where the budget says so; all processes have to agree."""
            self._zero_gradients()
            wants = self._budget.wants_to_end or self._budget.is_spent
            if args.world_size > 1:
                wants = _anywhere(wants, args.device)
            if wants:
                control.should_training_stop = True

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - as its caller calls it
            """Tell those who listen of an epoch that ran to its end, and stop after the last one."""
            is_cut = control.should_training_stop and (state.epoch or 0) < self._epochs + 1 - 1e-6
            if is_cut:
                return
            self._epochs += 1
            self._training.tell_epoch(self._epochs)
            if self._epochs == self._training.max_epochs:
                control.should_training_stop = True

        def _zero_gradients(self) -> None:
            # The Trainer zeroes those of the model's parameters; others may have joined the optimizer.
            for steps in self._training.steps:
                steps.optimizer.zero_grad()

    return Following


def _anywhere(wants: bool, device: Any) -> bool:  # noqa: FBT001 - what is asked
    """Tell whether any of the processes says yes."""
    import torch

    told = torch.tensor(int(wants), device=device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return bool(told)
