"""Stopping a training loop after a number of optimizer steps, whether or not it counts them itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from torch.nn import Module
from torch.optim import Optimizer

from ..evaluator_schema.errors import TrainingError
from .step_tasks import is_skipped


class _BudgetSpent(BaseException):
    """Ends the training function. No `Exception`, so that a loop's own `except Exception` lets it through."""


class Budget:
    """A limit on a training loop, as a context manager around it.

    Steps are counted for each optimizer by torch's own step hooks. The loop ends when the model is next
    run for training after every optimizer has made its steps, so that what follows a step (a scheduler, a
    log line) still runs; at the latest, it ends where an optimizer would make one step too many.

    Args:
        model: The model that is trained.
        optimizers: Its optimizers.
        max_steps: How many steps each optimizer may make; None for no limit.
        timeout: Seconds after which no further step is begun; None for no limit.
        on_step: Called after each step of the busiest optimizer, with the number of its steps.
    """

    def __init__(
        self,
        model: Module,
        optimizers: Sequence[Optimizer],
        max_steps: int | None = None,
        timeout: float | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self._model = model
        self._optimizers = list(optimizers)
        self._max_steps = max_steps
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._counts = dict.fromkeys(map(id, optimizers), 0)
        self._on_step = on_step
        self._stopped = False
        self._handles: list[Any] = []
        self._forward_handle: Any = None

    @property
    def steps(self) -> int:
        """How many steps the busiest optimizer has made."""
        return max(self._counts.values(), default=0)

    def stop(self) -> None:
        """Let no further step begin."""
        self._stopped = True

    def __enter__(self) -> Self:
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before))
            self._handles.append(optimizer.register_step_post_hook(self._after))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        for handle in (*self._handles, self._forward_handle):
            if handle is not None:
                handle.remove()
        self._handles.clear()
        self._forward_handle = None
        return isinstance(error, _BudgetSpent)

    def _before(self, optimizer: Optimizer, *_: Any) -> None:
        if self._is_over() or self._counts[id(optimizer)] == self._max_steps:
            raise _BudgetSpent

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        if is_skipped(optimizer):
            return
        steps = self.steps
        self._counts[id(optimizer)] += 1
        if self._on_step is not None and self.steps > steps:
            self._on_step(self.steps)
        done = all(count == self._max_steps for count in self._counts.values())
        if self._forward_handle is None and (done or self._is_over()):
            self._forward_handle = self._model.register_forward_pre_hook(self._before_forward)

    def _before_forward(self, model: Module, _: Any) -> None:
        if model.training:
            raise _BudgetSpent

    def _is_over(self) -> bool:
        return self._stopped or (self._deadline is not None and time.monotonic() >= self._deadline)


def check_limit(name: str, value: float | None, kinds: type | tuple[type, ...]) -> None:
    """Make sure that a limit is None or a number that is not negative.

    Raises:
        TrainingError: It is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kinds) or not value >= 0:
        raise TrainingError(f"{name} must be None or a number from 0 up, not {value!r}")
