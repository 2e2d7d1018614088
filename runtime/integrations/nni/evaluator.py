"""`NniEvaluator`: NNI's evaluator interface over a binding. Imported where NNI is; see `as_nni`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from nni.compression.utils.evaluator import Evaluator as NniInterface
from torch import Tensor
from torch.nn import Module

from ....evaluator_schema.errors import BindError
from ....evaluator_schema.evaluator import Evaluator
from ...binding.binding import Binding, bind
from ...patching.handles import Revertible
from . import as_nni
from .leading_steps import LeadingSteps
from .no_batch import NoBatch
from .placing import places
from .recording import is_wrapped, recorded_on

Task = Callable[[], Any]
_log = logging.getLogger("rebind")


class NniEvaluator(NniInterface):  # type: ignore[misc]  # NNI ships no types
    """An evaluator as NNI 3.0's compressors drive it. Made by `as_nni`.

    A compressor's constructor calls `_init_optimizer_helpers` with the model as it is before NNI wraps its
    modules; `compress` calls `bind_model` with the wrapped model, then patches and hooks, then `train`, and
    `unbind_model` in the end.

    NNI calls nothing more after an exception. So whatever fails in here while a model is bound gives the
    model back first: patches, hooks and joined parameters are gone, and the next `bind_model` starts anew.

    Args:
        evaluator: The evaluator.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        # What was recorded on each model before NNI changed its names.
        self._recorded: WeakKeyDictionary[Module, Evaluator] = WeakKeyDictionary()
        self._binding: Binding | None = None
        self._losses: list[Revertible] = []
        self._joined: list[Revertible] = []
        self._steps: LeadingSteps | None = None
        self._hooks: list[Any] = []

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator that was given to `as_nni`."""
        return self._evaluator

    @property
    def binding(self) -> Binding | None:
        """The binding, while a model is bound."""
        return self._binding

    @property
    def model(self) -> Module | None:
        """The model, while one is bound."""
        return None if self._binding is None else self._binding.model

    @property
    def _initialization_complete(self) -> bool:
        """Never: each compressor is to tell its model, since each model may be another one."""
        return False

    def _init_optimizer_helpers(self, pure_model: Module) -> None:
        """Learn which parameters the optimizers have, while the model has its own names.

        A model that another compressor of this evaluator has wrapped stays as it was recorded before.

        Raises:
            ValidationError: The model's own `configure_optimizers` cannot be recorded.
        """
        if pure_model not in self._recorded or not is_wrapped(pure_model):
            self._recorded[pure_model] = recorded_on(self._evaluator, pure_model)

    def bind_model(self, model: Module, param_names_map: Mapping[str, str] | None = None) -> None:
        """Bind the model, after unbinding another one.

        Args:
            model: The model, usually wrapped by NNI.
            param_names_map: New names by the names of the model before it was wrapped.

        Raises:
            BindError: Recorded parameters are not in the model, or it does not fit in another way. Nothing is
                bound then.
        """
        if self._binding is not None:
            _log.warning("a model is bound already; it is unbound first")
            self.unbind_model()
        rename = {old: new for old, new in (param_names_map or {}).items() if old != new}
        self._binding = bind(self._recorded.get(model, self._evaluator), model, rename=rename or None)

    def unbind_model(self) -> None:
        """Give the model back; does nothing if none is bound."""
        binding, self._binding = self._binding, None
        if binding is None:
            return
        try:
            self.remove_all_hooks()
        finally:
            self._losses, self._joined, self._steps = [], [], None
            binding.close()

    def train(self, max_steps: int | None = None, max_epochs: int | None = None) -> None:
        """Train the bound model; NNI means no limit by None."""
        with self._bound("train") as binding:
            if self._steps is not None:
                self._steps.begin_training()
            binding.train(max_steps, max_epochs)

    def finetune(self) -> None:
        """Train the bound model for as long as the training function wants to."""
        self.train()

    def evaluate(self) -> Any:
        """Evaluate the bound model.

        Returns:
            The score, or `(score, info)`; None where there is no evaluating function, as in NNI, whose
            post-training quantizer calls this only to see more data.
        """
        with self._bound("evaluate") as binding:
            if getattr(self._evaluator, "evaluating_func", ...) is None:
                _log.warning("evaluate: this evaluator has no evaluating_func; NNI gets None")
                return None
            score, info = binding.evaluate()
            return (score, info) if info else score

    def patch_loss(self, patch: Callable[[Tensor, Any], Tensor]) -> None:
        """Let `patch(loss, batch)` decide the loss; of several the last is outermost.

        The batch is the first argument of the training step. A criterion gets no batch; the patch may ignore
        it then, as pruners do, and using it is an error.
        """
        has_batch = getattr(self._evaluator, "criterion", None) is None

        def patched(loss: Tensor, first: Any) -> Tensor:
            return patch(loss, first if has_batch else NoBatch())

        with self._bound("patch_loss") as binding:
            self._losses.append(binding.patch_loss(patched))

    def revert_loss(self) -> None:
        """Take all loss patches away."""
        _revert(self._losses)

    def patch_optimizer_step(
        self, before_step_tasks: Sequence[Task], after_step_tasks: Sequence[Task]
    ) -> None:
        """Run tasks around each step, in the order of the lists; of several patches the last is outermost.

        With several optimizers, the tasks run around the step of the one that is ahead; see `LeadingSteps`.
        """
        with self._bound("patch_optimizer_step") as binding:
            if self._steps is None:
                self._steps = LeadingSteps(binding)
            self._steps.add(before_step_tasks, after_step_tasks)

    def revert_optimizer_step(self) -> None:
        """Take all tasks away."""
        if self._steps is not None:
            self._steps.revert()
            self._steps = None

    def patch_optim_param_group(self, module_name_param_dict: Mapping[str, Sequence[Tensor]]) -> None:
        """Let new parameters of modules train, with the options of the module's other parameters.

        They join the first group that has a parameter of the module itself; else of a module in it; else the
        first group of all, as in NNI. What is optimized already does not join again.
        """
        with self._bound("patch_optim_param_group") as binding:
            for anchor, tensors in places(binding, module_name_param_dict):
                self._joined.append(binding.add_parameters({anchor: tensors}))

    def revert_optim_param_group(self) -> None:
        """Take the parameters out again that joined."""
        _revert(self._joined)

    def register_hooks(self, hooks: Sequence[Any]) -> None:
        """Register hooks of NNI's (`TensorHook`, `ForwardHook`, `BackwardHook`)."""
        with self._bound("register_hooks"):
            for hook in hooks:
                hook.register()
                self._hooks.append(hook)

    def get_all_hooks(self) -> list[Any]:
        """List the hooks that are registered."""
        return self._hooks

    def remove_all_hooks(self) -> None:
        """Remove the hooks. NNI's hooks then forget what they collected."""
        while self._hooks:
            self._hooks.pop().remove()

    def get_dummy_input(self) -> Any:
        """Give an example input: on the bound model's device, or as the evaluator has it."""
        if self._binding is not None:
            return self._binding.dummy_input
        return getattr(self._evaluator, "dummy_input", None)

    @contextmanager
    def _bound(self, what: str) -> Iterator[Binding]:
        """Give the binding, and unbind the model if anything fails."""
        if self._binding is None:
            raise BindError(f"{what}: no model is bound; call bind_model(model, param_names_map) first")
        try:
            yield self._binding
        except BaseException:
            self.unbind_model()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        # Neither a model nor what was recorded on it goes along: the next compressor tells its own.
        return as_nni, (self._evaluator,)

    def __repr__(self) -> str:
        state = "unbound" if self._binding is None else f"bound to {type(self._binding.model).__name__}"
        return f"<{type(self._evaluator).__name__} for NNI, {state}>"


def _revert(handles: list[Revertible]) -> None:
    while handles:
        handles.pop().revert()
