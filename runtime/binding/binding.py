"""`bind`: an evaluator put onto a model, to train and evaluate it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

from torch.nn import Module
from torch.optim import Optimizer

from ...evaluator_schema.errors import BindError, TrainingError
from ...evaluator_schema.evaluator import Evaluator
from ..naming.inventory import Inventory
from ..naming.matching import Match, Missing, Report
from ..naming.renaming import Rename
from ..patching.handles import Handle
from ..patching.patching import Patchable, Patches
from ..state.carrying import Carried, Carrier
from ..state.joining import Additions, Joined, Joining, join, leave, plan
from ..state.kept import Kept
from .budget import Budget, check_limit
from .devices import device_of, moved
from .evaluation import Evaluation
from .events import Listener, Listeners
from .framework import Framework, Training, framework_of
from .modes import keeping_modes
from .reinitialise import Reinitialised
from .restoring import Pristine
from .resuming import capture_state, restore_state
from .training_progress import showing_training

State = Literal["fresh", "carry", "slice"]
_STATES = ("fresh", "carry", "slice")
_log = logging.getLogger("rebind")


def bind(
    evaluator: Evaluator,
    model: Module,
    rename: Rename | None = None,
    missing: Missing = "raise",
    state: State = "fresh",
) -> Binding:
    """Put an evaluator onto a model: fresh optimizers and schedulers, as direct construction gives them.

    Args:
        evaluator: The evaluator. Any number of bindings of it may live side by side.
        model: The model. It must have the recorded parameters; their shapes may differ.
        rename: From recorded parameter names to the model's: a mapping, a function, or pairs of a regular
            expression and its replacement.
        missing: `"ignore"` leaves out recorded parameters that the model does not have.
        state: Only `"fresh"`: a model that is first bound has no earlier state to go on with. See
            `Binding.rebind`.

    Returns:
        The binding, which is a context manager. Without `with`, call its `close()`.

    Raises:
        UnresolvedParametersError: The evaluator does not know the names of its parameters.
        MissingParametersError: Recorded parameters are not in the model.
        BindError: The evaluator and the model do not fit in another way.

    Example:
        >>> import torch
        >>> from rebind import TorchEvaluator, bind, trace
        >>> def train(model, optimizers, criterion, max_steps=None):
        ...     for _ in range(max_steps):
        ...         optimizers.zero_grad()
        ...         criterion(model(torch.ones(4, 2)), torch.zeros(4, 1)).backward()
        ...         optimizers.step()
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1)
        >>> evaluator = TorchEvaluator(
        ...     train,
        ...     optimizer,
        ...     torch.nn.functional.mse_loss,
        ...     evaluating_func=lambda model: -float(model(torch.ones(1, 2)).detach().abs()),
        ... )
        >>> with bind(evaluator, torch.nn.Linear(2, 1)) as binding:
        ...     binding.train(max_steps=50)
        ...     score, info = binding.evaluate()
        >>> round(score, 3)
        -0.0
    """
    framework = framework_of(evaluator)
    if not isinstance(model, Module):
        raise BindError(f"bind takes a torch.nn.Module second, not {type(model).__name__}")
    _check_state(state)
    if state != "fresh":
        raise BindError(
            f"state={state!r} goes on with the optimizers of a binding, and there is none yet: bind with "
            f"state='fresh', train, and call binding.rebind(model, state={state!r}) after the surgery"
        )
    return Binding(evaluator, model, framework, rename=rename, missing=missing)


class Binding(Patchable):
    """An evaluator on a model. Made by `bind`; gives the model back as it was when it is closed."""

    def __init__(
        self,
        evaluator: Evaluator,
        model: Module,
        framework: Framework,
        *,
        rename: Rename | None,
        missing: Missing,
    ) -> None:
        framework.check_model(model)
        self._evaluator = evaluator
        self._framework = framework
        self._model = model
        self._rename = rename
        self._missing: Missing = missing
        self._additions: list[Joined] = []
        self._carried = Carried()
        self._closed = False
        self._steps = 0
        self._budget: Budget | None = None
        self._patches = Patches(framework.criterion, may_skip=framework.may_skip_loss)
        self._listeners = Listeners(self._patches.criterion)
        inventory = Inventory(model)
        self._pristine = Pristine(inventory)
        try:
            self._built = self._build(inventory, rename)
        except BaseException:
            self._pristine.restore()
            raise
        self._patches.attach(model, self.optimizers)
        self._warn_if_frozen()

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator that is bound."""
        return self._evaluator

    @property
    def model(self) -> Module:
        """The model that it is bound to."""
        return self._model

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers of this model, always as a list."""
        return _listed(self._built.optimizers)

    @property
    def lr_schedulers(self) -> list[Any]:
        """The learning-rate schedulers of this model, always as a list."""
        return _listed(self._built.lr_schedulers)

    @property
    def criterion(self) -> Any:
        """What the training function gets as its third argument, criterion or training step, with patches."""
        patched = self._patches.criterion
        return patched if patched is None or patched.is_patched else patched._rebind_criterion

    @property
    def steps(self) -> int:
        """How many steps the busiest optimizer has made in all trainings of this binding."""
        return self._steps + (0 if self._budget is None else self._budget.steps)

    @property
    def dummy_input(self) -> Any:
        """The example input, on the model's device."""
        return moved(self._framework.dummy_input(self._model), device_of(self._model))

    @property
    def report(self) -> Report:
        """How the recorded parameters were found in the model, and what state went with them."""
        return replace(
            self._built.report, carried=tuple(self._carried.whole), sliced=tuple(self._carried.sliced)
        )

    def rebind(
        self, model: Module, rename: Rename | None = None, state: State = "fresh", kept: Kept | None = None
    ) -> Self:
        """Go over to another model, or to the same one after surgery, in place.

        The model so far is given back as it was, and the new one is bound. A rebind that fails changes
        nothing: the binding goes on as it was.

        Args:
            model: The model. Where it shares modules with the one so far, the hooks that it has now are its
                own.
            rename: From recorded parameter names to the model's. By default, as the model so far was bound,
                as far as its names are still there.
            state: `"fresh"` starts anew. `"carry"` goes on: parameter groups keep their options, schedulers
                their progress, and parameters of unchanged shape their optimizer state. `"slice"` does so
                too, and a parameter that lost channels keeps the state of those that are left.
            kept: With `"slice"`, which channels are left: `{parameter name: {dimension: kept indices}}`. Not
                needed where the values prove it: each slice is found once in the old parameter.

        Returns:
            This binding.

        Raises:
            MissingParametersError: Recorded parameters are not in the model.
            BindError: The binding is closed or training, or some state cannot go with the model exactly.
        """
        self._require_open()
        self._require_idle("bound to another model")
        _check_state(state)
        if not isinstance(model, Module):
            raise BindError(f"rebind takes a torch.nn.Module first, not {type(model).__name__}")
        if kept is not None and state != "slice":
            raise BindError(f"kept tells which channels to slice; it goes with state='slice', not {state!r}")
        self._framework.check_model(model)
        inventory = Inventory(model)
        now = Pristine(inventory)
        try:
            built = self._build(inventory, rename)
            staying = self._join_again(inventory, _listed(built.optimizers))
            carried = self._carry(built, state, kept, [item for items in staying.values() for item in items])
        except BaseException:
            now.restore()
            raise
        self._patches.detach()
        pristine = Pristine(inventory, earlier=self._pristine)
        self._pristine.restore(except_for=pristine)
        self._model, self._built, self._pristine, self._carried = model, built, pristine, carried
        self._rename = self._rename if rename is None else rename
        for addition, items in staying.items():
            addition.joined = items
        self._patches.attach(model, self.optimizers)
        self._warn_if_frozen()
        return self

    def add_parameters(self, additions: Additions) -> Joined:
        """Let new parameters (scales of a quantizer, adaptors) train with those that are optimized already.

        Each joins the parameter group of the parameter that is named, or of the first parameter of the
        module that is named and is optimized; the model itself is named `""`. It trains with the options of
        that group, and the schedulers of that group drive it. A tensor that is optimized already does not
        join again.

        Args:
            additions: The tensors by the name of a parameter or module.

        Returns:
            A handle with `revert()`, which is also a context manager. What has joined leaves when the
            binding is closed, and stays after a `rebind` unless it belonged to the old model only.

        Raises:
            BindError: The binding is closed, a name is not in the model, or a tensor cannot be optimized.
        """
        self._require_open()
        planned = plan(additions, self.optimizers, self._built.match)
        join(planned, self.optimizers)
        joined = Joined(planned, self._take_out)
        self._additions.append(joined)
        return joined

    def train(
        self,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        timeout: float | None = None,
        *,
        progress: bool | None = None,
    ) -> None:
        """Run the training function on the model.

        Args:
            max_steps: Stop after exactly this many steps of each optimizer, also where the function does not
                count them. 0 trains nothing.
            max_epochs: Stop after this many epochs; the function must take it, since nobody else sees
                an epoch.
            timeout: Begin no further step after this many seconds; the step under way is finished.
            progress: Whether to show a live bar; None shows one on a terminal once the training takes long.

        Raises:
            TrainingError: A limit is no number from 0 up, or the function cannot keep `max_epochs`.
            BindError: The binding is closed.
        """
        self._require_open()
        check_limit("max_steps", max_steps, int)
        check_limit("max_epochs", max_epochs, int)
        check_limit("timeout", timeout, (int, float))
        self._framework.check_limits(max_epochs)
        if self._budget is not None:
            raise TrainingError("this binding is training already; a training cannot start another one")
        if 0 in (max_steps, max_epochs) or timeout == 0:
            return
        with showing_training(self._listeners, progress), self._counting(max_steps, timeout) as budget:
            self._framework.train(
                Training(
                    self._model,
                    self._built,
                    self._patches.criterion,
                    self._patches.steps,
                    budget,
                    max_steps,
                    max_epochs,
                    lambda epoch: self._listeners.tell("epoch", self.steps, epoch=epoch),
                )
            )

    def stop(self) -> None:
        """End the training that is running, after the step under way.

        May be called from a task, from the training function or from another thread.
        """
        budget = self._budget
        if budget is not None:
            budget.stop()

    def on_event(self, listener: Listener) -> Handle:
        """Call `listener(event)` for the begin and end of each training and for each step, with its loss.

        Args:
            listener: Gets an `Event`. It may evaluate, and stop the training.

        Returns:
            A handle with `revert()`, which is also a context manager.
        """
        self._require_open()
        return self._listeners.add(listener)

    def state_dict(self) -> dict[str, Any]:
        """Give what a training needs to go on: model, optimizers, schedulers, steps done, random generators.

        It is a copy, which further training does not change, and `torch.save` can write it. Parameters that
        joined are in it, also those that are not in the model; patches, tasks and hooks are not.
        """
        self._require_open()
        return capture_state(
            self._model, self.optimizers, self.lr_schedulers, self._added_tensors(), self.steps
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken, to the bit.

        Args:
            state: What `state_dict` gave.

        Raises:
            BindError: The state is of another model, other optimizers, schedulers or shapes, or the binding
                is closed or training. Nothing has changed then.
        """
        self._require_open()
        self._require_idle("set to another state")
        self._steps = restore_state(
            state, self._model, self.optimizers, self.lr_schedulers, self._added_tensors()
        )

    def finetune(self) -> None:
        """Run the training function for as long as it wants to.

        Raises:
            BindError: The binding is closed.
        """
        self.train()

    def evaluate(self) -> Evaluation:
        """Run the evaluating function on the model.

        It may be called while a training runs, from a listener or a task: the modules then go on in the
        training modes that they were in.

        Raises:
            EvaluationError: There is none, or it returned no score.
            BindError: The binding is closed.
        """
        self._require_open()
        if self._budget is None:
            return self._framework.evaluate(self._model)
        with keeping_modes(self._model):
            return self._framework.evaluate(self._model)

    def close(self) -> None:
        """Give the model back as it was, apart from what training changed in its weights and buffers."""
        if not self._closed:
            self._closed = True
            try:
                self._patches.close()
                for addition in reversed(self._additions.copy()):
                    addition.revert()
            finally:
                self._pristine.restore()
                if self._budget is not None:  # closed by what it runs itself, which is to end now
                    self._budget.end()

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " (closed)" if self._closed else ""
        return f"<Binding of {type(self._evaluator).__name__} to {type(self._model).__name__}{state}>"

    @contextmanager
    def _counting(self, max_steps: int | None, timeout: float | None) -> Iterator[Budget]:
        """Count the steps of one training, stop it in time, and tell the listeners."""
        listeners = self._listeners
        budget = self._framework.budget(self._model, self._patches.steps, max_steps, timeout, listeners)
        self._budget = budget
        try:
            listeners.begin(self._steps, max_steps)
            with budget:
                yield budget
        finally:
            self._steps += budget.steps
            self._budget = None
            listeners.tell("end", self._steps)

    def _build(self, inventory: Inventory, rename: Rename | None) -> Reinitialised:
        current = self._built.match if hasattr(self, "_built") else None
        if rename is None and current is not None:
            rename = _surviving_renames(self._rename, current, inventory)
        return self._framework.build(inventory, rename=rename, missing=self._missing, current=current)

    def _join_again(
        self, inventory: Inventory, optimizers: Sequence[Optimizer]
    ) -> dict[Joined, tuple[Joining, ...]]:
        """Let what was added join new optimizers too, unless it belongs to the old model only."""
        if not self._additions:
            return {}
        old = set(map(id, self._model.parameters()))
        optimized = {
            id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]
        }
        staying = {
            addition: tuple(
                item
                for item in addition.joined
                if (id(item.tensor) in inventory.names or id(item.tensor) not in old)
                and id(item.tensor) not in optimized
            )
            for addition in self._additions
        }
        join([item for items in staying.values() for item in items], optimizers)
        return staying

    def _carry(
        self, built: Reinitialised, state: State, kept: Kept | None, staying: Sequence[Joining]
    ) -> Carried:
        if state == "fresh":
            return Carried()
        carrier = Carrier(
            self._built.match,
            built.match,
            slices=state == "slice",
            kept=kept,
            staying={item.name: item.tensor for item in staying},
        )
        carrier.carry(
            self.optimizers, _listed(built.optimizers), self.lr_schedulers, _listed(built.lr_schedulers)
        )
        return carrier.carried

    def _take_out(self, joined: Joined) -> None:
        if joined in self._additions:
            self._additions.remove(joined)
            leave(joined.joined, self.optimizers)

    def _warn_if_frozen(self) -> None:
        for index, optimizer in enumerate(self.optimizers):
            if not any(p.requires_grad for group in optimizer.param_groups for p in group["params"]):
                _log.warning(
                    "optimizer %d (%s) will change nothing: all of its parameters are frozen (requires_grad "
                    "is False); let others train with binding.add_parameters",
                    index,
                    type(optimizer).__name__,
                )

    def _added_tensors(self) -> dict[str, Any]:
        return {item.name: item.tensor for addition in self._additions for item in addition.joined}

    def _require_idle(self, what: str) -> None:
        if self._budget is not None:
            raise BindError(f"this binding is training, and cannot be {what} before the training has ended")

    def _require_open(self) -> None:
        if self._closed:
            raise BindError("this binding is closed; bind the evaluator again")


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _check_state(state: str) -> None:
    if state not in _STATES:
        raise BindError(f"state must be one of {', '.join(map(repr, _STATES))}, not {state!r}")


def _surviving_renames(rename: Rename | None, match: Match, inventory: Inventory) -> dict[str, str] | None:
    """Give the renames under which a model was bound, as far as another one has the new names."""
    if rename is None:
        return None
    renamed = ((old, new[0]) for old, new in match.found.items() if len(new) == 1 and new != (old,))
    return {old: new for old, new in renamed if new in inventory.parameters}
