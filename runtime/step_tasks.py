"""Tasks around optimizer steps: before, with this step's gradients ready; after, with the weights changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from .handles import Handle

Task = Callable[[], Any]


def is_skipped(optimizer: Optimizer) -> bool:
    """Tell whether a fused optimizer is about to skip its update, because `GradScaler` found an infinity.

    Other optimizers are not called at all then, and none of their hooks run.
    """
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


class StepTasks:
    """The tasks around one optimizer's steps, through torch's own step hooks.

    Of several tasks the last one is outermost: it runs first before a step, and last after it.

    Args:
        optimizer: The optimizer. Nothing is registered on it before there is a task.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._before: list[Task] = []
        self._after: list[Task] = []
        self._hooks: list[Any] = []

    def add(self, task: Task, *, before: bool) -> Handle:
        """Run a task around each step from now on."""
        tasks = self._before if before else self._after
        entry = _Entry(task)
        tasks.append(entry)
        if not self._hooks:
            self._hooks = [
                self._optimizer.register_step_pre_hook(self._on_begin),
                self._optimizer.register_step_post_hook(self._on_end),
            ]
        return Handle(lambda: self._remove(tasks, entry), f"a task {'before' if before else 'after'} steps")

    def close(self) -> None:
        """Take all tasks away."""
        self._before.clear()
        self._after.clear()
        self._unhook()

    def _remove(self, tasks: list[Task], entry: Task) -> None:
        # By identity, as the same function may have been added twice.
        tasks[:] = [task for task in tasks if task is not entry]
        if not self._before and not self._after:
            self._unhook()

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _on_begin(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if not self._before:
            return None
        closure = kwargs.get("closure") if len(args) < 2 else args[1]
        if closure is None:
            self._run_before(optimizer)
            return None
        # The gradients come into being inside of the step, when it first calls the closure.
        wrapped = _BeforeUpdate(closure, lambda: self._run_before(optimizer))
        if len(args) < 2:
            return args, {**kwargs, "closure": wrapped}
        return (args[0], wrapped, *args[2:]), kwargs

    def _run_before(self, optimizer: Optimizer) -> None:
        if is_skipped(optimizer):
            return
        _unscale(optimizer)
        for task in reversed(list(self._before)):
            task()

    def _on_end(self, optimizer: Optimizer, *_: Any) -> None:
        if not is_skipped(optimizer):
            for task in list(self._after):
                task()


class _Entry:
    """One addition of a task, told from another addition of the same one."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self) -> None:
        self._task()


class _BeforeUpdate:
    """A closure that runs the tasks after its first call in a step. LBFGS calls it several times."""

    def __init__(self, closure: Callable[[], Any], run: Callable[[], None]) -> None:
        self._closure = closure
        self._run: Callable[[], None] | None = run

    def __call__(self) -> Any:
        loss = self._closure()
        run, self._run = self._run, None
        if run is not None:
            run()
        return loss


def _unscale(optimizer: Optimizer) -> None:
    """Divide the gradients by the scale that `GradScaler` leaves to a fused optimizer to divide by."""
    scale = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    with torch.no_grad():
        for gradient in gradients:
            gradient.div_(scale.to(gradient.device))
    # The fused kernel divides no more; `GradScaler.step` deletes the attribute when the step is done.
    optimizer.grad_scale = None  # type: ignore[attr-defined]  # set by GradScaler itself
