"""Stopping a training loop after a number of optimizer steps, whether or not it counts them itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import inf
from types import TracebackType
from typing import Any, Self

from torch import distributed
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ...evaluator_schema.errors import TrainingError
from ..patching.observing import Hook
from ..patching.step_tasks import StepTasks
from .events import Listeners
from .presence import Presence


class _BudgetSpent(BaseException):
    """Ends the training function. No `Exception`, so that a loop's own `except Exception` lets it through.

    Args:
        budget: Which one it is: a training function may train other bindings, with budgets of their own.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget


class Budget:
    """A limit on a training loop, as a context manager around it.

    The loop ends when the model is next run for training after every optimizer has made its steps, so that
    what follows a step (a scheduler, a log line) still runs; at the latest, it ends where an optimizer would
    make one step too many. A timeout or a stop takes effect at the end of a step: the one under way is
    finished, so the model is always what a loop of some number of whole steps leaves.

    Args:
        model: The model that is trained.
        optimizers: Its optimizers, with the tasks around their steps.
        max_steps: How many steps each optimizer may make; None for no limit.
        timeout: Seconds after which no step is begun; None for no limit.
        listeners: Told of each step of the busiest optimizer.
    """

    steps: int = 0
    """How many steps the busiest optimizer has made."""
    is_spent: bool = False
    """Whether every optimizer has made its steps."""

    def __init__(
        self,
        model: Module,
        optimizers: Sequence[StepTasks],
        max_steps: int | None,
        timeout: float | None,
        listeners: Listeners,
    ) -> None:
        self._model = model
        self._optimizers = list(optimizers)
        self._max_steps = max_steps
        self._deadline = inf if timeout is None else time.monotonic() + timeout
        self._counts = {id(one.optimizer): 0 for one in optimizers}
        self._listeners = listeners
        self._ending = False
        self._presence: Presence | None = None
        self._forward_handles: list[Any] = []

    def stop(self) -> None:
        """Let no step begin after the one that is under way."""
        self._deadline = -inf

    def end(self) -> None:
        """Let no step be made any more, not even the one that is under way."""
        if not self._ending:
            self._ending = True
            self._forward_handles = [self._model.register_forward_pre_hook(Hook(self._before_forward))]
            if _may_be_data_parallel(self._model):
                self._forward_handles.append(register_module_forward_pre_hook(self._before_any_forward))

    def __enter__(self) -> Self:
        self._presence = Presence(self._model, [one.optimizer for one in self._optimizers])
        for one in self._optimizers:
            one.watch(self)
        self.finish_step()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        for one in self._optimizers:
            one.watch(None)
        for handle in self._forward_handles:
            handle.remove()
        self._forward_handles = []
        return isinstance(error, _BudgetSpent) and error.budget is self

    def begin_step(self, optimizer: Optimizer) -> None:
        """Be asked by an optimizer that is about to make a step."""
        made = self._counts[id(optimizer)]
        if self._ending or made == self._max_steps:
            raise _BudgetSpent(self)
        if made == 0 and self._presence is not None:
            self._presence.check(optimizer)

    def count_step(self, optimizer: Optimizer) -> None:
        """Be told that an optimizer has made a step."""
        steps = self._counts[id(optimizer)] = self._counts[id(optimizer)] + 1
        if steps == self._max_steps:
            self.is_spent = all(count == steps for count in self._counts.values())
        if steps > self.steps:
            self.steps = steps
            if self._listeners:
                self._listeners.tell_step(steps)

    def finish_step(self) -> None:
        """Be told that everything around a step is done: the place where a training may end."""
        if self.is_spent or time.monotonic() >= self._deadline:
            self.end()

    def _before_forward(self, model: Module, _: Any) -> None:
        if model.training:
            raise _BudgetSpent(self)

    def _before_any_forward(self, module: Module, _: Any) -> None:
        # It gives all processes the buffers of the first one before it runs the model, and they are to stay.
        if isinstance(module, DistributedDataParallel) and any(m is self._model for m in module.modules()):
            self._before_forward(self._model, None)


def _may_be_data_parallel(model: Module) -> bool:
    """Tell whether the training function may have put a model into `DistributedDataParallel`."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    return not any(isinstance(module, DistributedDataParallel) for module in model.modules())


def check_limit(name: str, value: float | None, kinds: type | tuple[type, ...]) -> None:
    """Make sure that a limit is None or a number that is not negative.

    Raises:
        TrainingError: It is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kinds) or not value >= 0:
        raise TrainingError(f"{name} must be None or a number from 0 up, not {value!r}")
