"""What an algorithm may do to a training: patches of the loss, tasks around steps, hooks."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import Module
from torch.optim import Optimizer

from ...evaluator_schema.checking.signatures import suggest
from ...evaluator_schema.errors import BindError, TrainingError
from ..naming.canonical import canonical
from .handles import Handle
from .loss_patches import PatchedCriterion, patch_criterion, patch_loss
from .observing import Collection, Reduction, Source, collect_from, hook_gradient, hook_module
from .step_tasks import StepTasks, Task


class Patches:
    """The patches, tasks and hooks of one binding.

    Loss patches and step tasks belong to the training and stay when another model is bound; hooks belong to
    the model and go with it.

    Args:
        criterion: The user's criterion or training step; None where the trainer has its own.
        may_skip: Whether it may return None, for a batch that is not trained on.
    """

    def __init__(self, criterion: Callable[..., Any] | None, *, may_skip: bool = False) -> None:
        self.criterion: PatchedCriterion | None = (
            None if criterion is None else PatchedCriterion(criterion, may_skip=may_skip)
        )
        self._model: Module | None = None
        self._is_compiled = False
        self._steps: list[StepTasks] = []
        self._hooks: list[Handle] = []
        self._tasks: list[_AddedTask] = []
        self._losses: list[Handle] = []

    @property
    def steps(self) -> list[StepTasks]:
        """The optimizers, each with the tasks around its steps."""
        return self._steps

    def attach(self, model: Module, optimizers: Sequence[Optimizer]) -> None:
        """Put the step tasks onto these optimizers; hooks on the model before are gone."""
        self.detach()
        self._model = model
        self._is_compiled = any(map(_is_compiled, model.modules()))
        self._steps = [StepTasks(optimizer) for optimizer in optimizers]
        for task in self._tasks:
            task.attach(self._steps)

    def detach(self) -> None:
        """Take everything off the model and its optimizers."""
        for hook in self._hooks:
            hook.revert()
        self._hooks = []
        for steps in self._steps:
            steps.close()
        self._steps = []

    def close(self) -> None:
        """Take everything away for good."""
        self.detach()
        for loss in reversed(self._losses):
            loss.revert()
        self._losses, self._tasks = [], []

    def loss(self, patch: Callable[..., Any]) -> Handle:
        """Let `patch(loss, *inputs)` decide the loss."""
        return self._kept(patch_loss(self._criterion(), patch))

    def wrap_criterion(self, wrap: Callable[..., Any]) -> Handle:
        """Replace the criterion by `wrap(criterion)`."""
        return self._kept(patch_criterion(self._criterion(), wrap))

    def task(self, task: Task, optimizer: int | None, *, before: bool) -> Handle:
        """Run a task around the steps of one optimizer, or of all."""
        if not callable(task):
            raise TrainingError(f"a step task is a function without arguments, not {task!r}")
        if optimizer is not None and not 0 <= optimizer < len(self._steps):
            raise TrainingError(
                f"optimizer={optimizer!r} is none of the {len(self._steps)} optimizers, counted from 0"
            )
        added = _AddedTask(task, optimizer, before=before)
        added.attach(self._steps)
        self._tasks.append(added)

        def undo() -> None:
            self._tasks = [kept for kept in self._tasks if kept is not added]
            added.detach()

        return Handle(undo, f"a task {'before' if before else 'after'} steps")

    def module_hook(self, name: str, call: Callable[..., Any], source: Source) -> Handle:
        """Hook a module by name."""
        return self._hooked(self._noticed(hook_module(self._module(name), call, source)))

    def gradient_hook(self, name: str, call: Callable[..., Any]) -> Handle:
        """Hook a parameter's gradient by the parameter's name."""
        parameters = dict(self._bound().named_parameters(remove_duplicate=False))
        return self._hooked(hook_gradient(_find(parameters, name, "parameter"), call))

    def collect(self, name: str, keep: int | None, reduce: Reduction | None, source: Source) -> Collection:
        """Keep what passes through a module, within a bound."""
        if source not in ("output", "input", "grad_output"):
            raise TrainingError(f"source must be 'output', 'input' or 'grad_output', not {source!r}")
        module = self._module(name)
        collection = Collection(keep, reduce)
        collection.handle = self._hooked(self._noticed(collect_from(module, collection, source)))
        return collection

    def _noticed(self, handle: Handle) -> Handle:
        """Let compiled code see that a hook has come, and that it goes: it does not look by itself."""
        if not self._is_compiled:
            return handle
        torch.compiler.reset()

        def undo() -> None:
            handle.revert()
            torch.compiler.reset()

        return Handle(undo, "a hook on a compiled model")

    def _criterion(self) -> PatchedCriterion:
        if self.criterion is None:
            raise TrainingError("this evaluator has no criterion to patch")
        return self.criterion

    def _kept(self, handle: Handle) -> Handle:
        self._losses = [*(loss for loss in self._losses if loss.active), handle]
        return handle

    def _hooked(self, handle: Handle) -> Handle:
        self._hooks = [*(hook for hook in self._hooks if hook.active), handle]
        return handle

    def _bound(self) -> Module:
        if self._model is None:
            raise BindError("no model is bound")
        return self._model

    def _module(self, name: str) -> Module:
        found: Module = _find(dict(self._bound().named_modules(remove_duplicate=False)), name, "module")
        return found


class _AddedTask:
    """One task and where it runs."""

    def __init__(self, task: Task, optimizer: int | None, *, before: bool) -> None:
        self._task = task
        self._optimizer = optimizer
        self._before = before
        self._handles: list[Handle] = []

    def attach(self, steps: Sequence[StepTasks]) -> None:
        chosen = steps if self._optimizer is None else steps[self._optimizer : self._optimizer + 1]
        self._handles = [one.add(self._task, before=self._before) for one in chosen]

    def detach(self) -> None:
        for handle in self._handles:
            handle.revert()


def _find(known: dict[str, Any], name: str, what: str) -> Any:
    """Find something by its name, or by its canonical name where that is clear."""
    if name in known:
        return known[name]
    alike = [other for other in known if _canonical(other, what) == _canonical(name, what)]
    if alike and all(inner.startswith(f"{outer}.") for outer, inner in itertools.pairwise(alike)):
        return known[alike[-1]]  # of a wrapper and what it wraps, the inner one
    raise BindError(f"the model has no {what} {name!r}{suggest(name, known) or f'; it has {_listed(known)}'}")


def _canonical(name: str, what: str) -> str:
    # A module's name is stripped like that of a parameter in it.
    return canonical(name) if what == "parameter" else canonical(f"{name}.weight").removesuffix(".weight")


def _is_compiled(module: Module) -> bool:
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


def _listed(known: dict[str, Any]) -> str:
    names = [name for name in known if name]
    return ", ".join(map(repr, names[:6])) + (", ..." if len(names) > 6 else "")


class Patchable(ABC):
    """The part of a binding that algorithms use to change a training."""

    _patches: Patches

    @abstractmethod
    def _require_open(self) -> None:
        """Make sure that the binding is open."""

    def patch_loss(self, patch: Callable[..., Any]) -> Handle:
        """Let `patch(loss, *inputs)` decide the loss.

        `inputs` is what the criterion got (input, target), or what the training step got (the batch first).
        Of several patches the last is outermost. A loop that divides the loss by a number of accumulated
        batches divides what a patch added as well, so a penalty has the same gradient with and without
        accumulation.

        Args:
            patch: Returns the new loss. It gets as many of the inputs as it has parameters without a default,
                or all of them as `*inputs`; `patch(loss)` gets the loss alone.

        Returns:
            A handle with `revert()`, which is also a context manager.

        Raises:
            TrainingError: As the training runs: there is no loss to be found in what the criterion returned,
                or the patch returned no tensor.
            BindError: The binding is closed.
        """
        self._require_open()
        return self._patches.loss(patch)

    def patch_criterion(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Handle:
        """Replace the criterion by `wrap(criterion)`; nests with loss patches, the last one outermost.

        `wrap` is called once. The criterion that it gets is what lies below it as the training runs, so
        patches below may come off without its being called anew.

        Args:
            wrap: Takes a criterion, and returns the one to use.

        Returns:
            A handle with `revert()`, which is also a context manager.
        """
        self._require_open()
        return self._patches.wrap_criterion(wrap)

    def before_step(self, task: Callable[[], Any], optimizer: int | None = None) -> Handle:
        """Run a task before each optimizer step: gradients are ready and unscaled, parameters unchanged.

        A step that `GradScaler` skips runs no task. In a step with a closure the task runs once, after the
        first call of the closure.

        Args:
            task: Called without arguments. Of several tasks the last one runs first.
            optimizer: The number of one optimizer; by default, the task runs before the steps of each.
        """
        self._require_open()
        return self._patches.task(task, optimizer, before=True)

    def after_step(self, task: Callable[[], Any], optimizer: int | None = None) -> Handle:
        """Run a task after each optimizer step, when the parameters have changed.

        Args:
            task: Called without arguments. Of several tasks the last one runs last.
            optimizer: The number of one optimizer; by default, the task runs after the steps of each.
        """
        self._require_open()
        return self._patches.task(task, optimizer, before=False)

    def forward_hook(self, module_name: str, hook: Callable[..., Any]) -> Handle:
        """Call `hook(module, inputs, output)` when a module ran; it may return another output.

        Args:
            module_name: As in `model.named_modules()`.
            hook: What is called.

        Raises:
            BindError: There is no such module, or the binding is closed.
        """
        self._require_open()
        return self._patches.module_hook(module_name, hook, "output")

    def backward_hook(self, module_name: str, hook: Callable[..., Any]) -> Handle:
        """Call `hook(module, grad_input, grad_output)` as gradients passed through a module.

        Args:
            module_name: As in `model.named_modules()`.
            hook: What is called; it may return another `grad_input`.

        Raises:
            BindError: There is no such module, or the binding is closed.
        """
        self._require_open()
        return self._patches.module_hook(module_name, hook, "grad_output")

    def gradient_hook(self, parameter_name: str, hook: Callable[..., Any]) -> Handle:
        """Call `hook(gradient)` as a parameter's gradient is computed; it may return another one.

        This is the gradient of one backward pass: not yet accumulated, and scaled where a `GradScaler` is
        used; with `DistributedDataParallel`, that of this process's own rows. Of a sharded parameter (FSDP2)
        it is the accumulated one, over all processes. See `before_step` for the gradient of the step.

        Args:
            parameter_name: As in `model.named_parameters()`.
            hook: What is called.

        Raises:
            BindError: There is no such parameter, or the binding is closed.
        """
        self._require_open()
        return self._patches.gradient_hook(parameter_name, hook)

    def collect(
        self,
        module_name: str,
        keep: int | None = None,
        reduce: Reduction | None = None,
        source: Source = "output",
    ) -> Collection:
        """Keep what passes through a module, within a bound on memory.

        Args:
            module_name: The module.
            keep: How many values to keep, the last ones.
            reduce: In place of `keep`: `"mean"` for the running mean, or a function of (state, value), whose
                state is None at first, that returns the new state.
            source: `"output"`, `"input"` or `"grad_output"`.

        Returns:
            The collection: `values()` (oldest first), `value`, `count`, `clear()` and `revert()`.
        """
        self._require_open()
        return self._patches.collect(module_name, keep, reduce, source)
