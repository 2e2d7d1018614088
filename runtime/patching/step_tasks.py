"""Tasks around optimizer steps: before, with this step's gradients ready; after, with the weights changed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import torch
from torch.optim import Optimizer

from .handles import Handle

Task = Callable[[], Any]


class StepWatcher(Protocol):
    """Who decides whether a step may be made, and counts it: a budget."""

    def begin_step(self, optimizer: Optimizer) -> None:
        """Be asked before anything of a step happens; raises where it may not be made."""

    def count_step(self, optimizer: Optimizer) -> None:
        """Be told of a step that was made, before the tasks after it."""

    def finish_step(self) -> None:
        """Be told that the tasks after a step are done."""


class StepTasks:
    """The tasks around one optimizer's steps, through torch's own step hooks.

    Of several tasks the last one is outermost: it runs first before a step, and last after it. Whoever
    watches the steps is asked before the first task, so that no task runs for a step that is not made.

    torch hooks the step of each class, so where an optimizer's own step calls that of its base class, hooks
    run for both. Only the outermost of them is a step here.

    Where `GradScaler` has found an infinity, a fused optimizer skips its update, and there is no step (others
    are not called at all then).

    Args:
        optimizer: The optimizer. Nothing is registered on it before there is a task or a watcher.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._watcher: StepWatcher | None = None
        self._before: list[_Entry] = []
        self._after: list[_Entry] = []
        self._hooks: list[Any] = []
        self._scale: torch.Tensor | None = None
        self._step: FrameType | None = None
        self._is_announced = False

    def add(self, task: Task, *, before: bool) -> Handle:
        """Run a task around each step from now on."""
        tasks = self._before if before else self._after
        entry = _Entry(task)
        tasks.append(entry)
        self._hook()
        return Handle(lambda: self._remove(tasks, entry), f"a task {'before' if before else 'after'} steps")

    def watch(self, watcher: StepWatcher | None) -> None:
        """Let somebody decide on each step and count it, or nobody any more."""
        self._watcher = watcher
        self._hook()

    def announce(self) -> None:
        """Run the tasks before the step that is under way, if they have not run.

        A trainer calls it where the gradients are ready, inside of the closure that it passes. Without it,
        the tasks run when that closure is done.
        """
        if self._step is not None:
            self._run_before()

    def close(self) -> None:
        """Take all tasks away. Who watches stays, until the training that is watched has ended."""
        self._before.clear()
        self._after.clear()
        self._hook()

    def _remove(self, tasks: list[_Entry], entry: _Entry) -> None:
        tasks[:] = [task for task in tasks if task is not entry]
        self._hook()

    def _hook(self) -> None:
        """Have hooks on the optimizer exactly while they are needed."""
        needed = bool(self._before or self._after or self._watcher is not None)
        self._step = self._step if needed else None
        if needed and not self._hooks:
            self._hooks = [
                self.optimizer.register_step_pre_hook(self._on_begin),
                self.optimizer.register_step_post_hook(self._on_end),
            ]
        elif not needed:
            for hook in self._hooks:
                hook.remove()
            self._hooks = []

    def _on_begin(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        frame = sys._getframe(1)
        if self._step is not None and _is_within(frame, self._step):
            return None
        self._step = frame
        self._is_announced = False
        if self._watcher is not None:
            self._watcher.begin_step(optimizer)
        if not self._before:
            return None
        closure = kwargs.get("closure") if len(args) < 2 else args[1]
        if closure is None:
            self._run_before()
            return None

        def before_update() -> Any:
            # The gradients come into being inside of the step. LBFGS calls this several times: the tasks run
            # after the first.
            loss = closure()
            self._run_before()
            return loss

        if len(args) < 2:
            return args, {**kwargs, "closure": before_update}
        return (args[0], before_update, *args[2:]), kwargs

    def _run_before(self) -> None:
        if self._is_announced or getattr(self.optimizer, "found_inf", None):
            return
        self._is_announced = True
        if getattr(self.optimizer, "grad_scale", None) is not None:
            self._unscale(self.optimizer)
        for entry in self._before[::-1]:
            entry.task()

    def _on_end(self, optimizer: Optimizer, *_: Any) -> None:
        if self._step is not sys._getframe(1):
            return
        self._step = None
        if self._scale is not None:
            optimizer.grad_scale, self._scale = self._scale, None  # type: ignore[attr-defined]  # GradScaler's
        if not getattr(optimizer, "found_inf", None):
            if self._watcher is not None:
                self._watcher.count_step(optimizer)
            for entry in self._after[:]:
                entry.task()
        if self._watcher is not None:
            self._watcher.finish_step()

    def _unscale(self, optimizer: Any) -> None:
        """Divide the gradients by the scale that `GradScaler` leaves to a fused optimizer to divide by."""
        scale: torch.Tensor = optimizer.grad_scale
        with torch.no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.div_(scale.to(parameter.grad.device))
        # The fused kernel is to divide no more in this step.
        self._scale = scale
        optimizer.grad_scale = None


def _is_within(frame: FrameType | None, outer: FrameType) -> bool:
    """Tell whether a call is made within another, and not after that one has ended by an exception."""
    while frame is not None and frame is not outer:
        frame = frame.f_back
    return frame is outer


class _Entry:
    """One addition of a task, told by its identity from another addition of the same function."""

    def __init__(self, task: Task) -> None:
        self.task = task
