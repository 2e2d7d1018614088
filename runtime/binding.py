"""`bind`: an evaluator put onto a model, to train and evaluate it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Literal, Self

from torch.nn import Module
from torch.optim import Optimizer

from ..evaluator_schema.checks import options_of
from ..evaluator_schema.errors import BindError, EvaluationError, TrainingError
from ..evaluator_schema.torch_evaluator import TorchEvaluator
from .budget import Budget, check_limit
from .devices import device_of, moved
from .evaluation import Evaluation, evaluation_of
from .matching import Missing, Rename, Report
from .reinitialise import Reinitialised, reinitialise
from .restoring import Pristine


def bind(
    evaluator: TorchEvaluator,
    model: Module,
    rename: Rename | None = None,
    missing: Missing = "raise",
    state: Literal["fresh"] = "fresh",
) -> Binding:
    """Put an evaluator onto a model: fresh optimizers and schedulers, as direct construction gives them.

    Args:
        evaluator: The evaluator. Any number of bindings of it may live side by side.
        model: The model. It must have the recorded parameters; their shapes may differ.
        rename: From recorded parameter names to the model's: a mapping, a function, or pairs of a regular
            expression and its replacement.
        missing: `"ignore"` leaves out recorded parameters that the model does not have.
        state: `"fresh"` starts anew.

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
        ...     evaluating_func=lambda model: -float(model(torch.ones(1, 2)).abs()),
        ... )
        >>> with bind(evaluator, torch.nn.Linear(2, 1)) as binding:
        ...     binding.train(max_steps=50)
        ...     score, info = binding.evaluate()
        >>> round(score, 3)
        -0.0
    """
    if not isinstance(evaluator, TorchEvaluator):
        raise BindError(f"bind takes an evaluator first, not {type(evaluator).__name__}")
    if not isinstance(model, Module):
        raise BindError(f"bind takes a torch.nn.Module second, not {type(model).__name__}")
    if state != "fresh":
        raise BindError(f"state must be 'fresh' when a model is first bound, not {state!r}")
    return Binding(evaluator, model, rename=rename, missing=missing)


class Binding:
    """An evaluator on a model. Made by `bind`; gives the model back as it was when it is closed."""

    def __init__(
        self, evaluator: TorchEvaluator, model: Module, *, rename: Rename | None, missing: Missing
    ) -> None:
        self._evaluator = evaluator
        self._model = model
        self._built: Reinitialised = reinitialise(
            evaluator,
            model,
            evaluator.optimizers,
            evaluator.lr_schedulers,
            rename=rename,
            missing=missing,
        )
        self._pristine = Pristine(model)
        self._closed = False

    @property
    def evaluator(self) -> TorchEvaluator:
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
        """What the training function gets as its third argument: the criterion, or the training step."""
        return self._evaluator.criterion or self._evaluator.training_step

    @property
    def dummy_input(self) -> Any:
        """The example input, on the model's device."""
        return moved(self._evaluator.dummy_input, device_of(self._model))

    @property
    def report(self) -> Report:
        """How the recorded parameters were found in the model."""
        return self._built.report

    def train(
        self,
        max_steps: int | None = None,
        max_epochs: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Run the training function on the model.

        Args:
            max_steps: Stop after exactly this many steps of each optimizer, also where the function does not
                count them. 0 trains nothing.
            max_epochs: Stop after this many epochs; the function must take it, since nobody else sees an epoch.
            timeout: Begin no further step after this many seconds.

        Raises:
            TrainingError: A limit is no number from 0 up, or the function cannot keep `max_epochs`.
            BindError: The binding is closed.
        """
        self._require_open()
        check_limit("max_steps", max_steps, int)
        check_limit("max_epochs", max_epochs, int)
        check_limit("timeout", timeout, (int, float))
        function = self._evaluator.training_func
        takes = options_of(function)
        if max_epochs is not None and "max_epochs" not in takes:
            raise TrainingError(
                "max_epochs was given, and training_func does not take it; add the argument max_epochs, or limit "
                "the training with max_steps"
            )
        if 0 in (max_steps, max_epochs) or timeout == 0:
            return
        options = {
            "lr_schedulers": self._built.lr_schedulers,
            "max_steps": max_steps,
            "max_epochs": max_epochs,
        }
        with Budget(self._model, self.optimizers, max_steps, timeout):
            function(
                self._model,
                self._built.optimizers,
                self.criterion,
                **{name: value for name, value in options.items() if name in takes},
            )

    def finetune(self) -> None:
        """Run the training function for as long as it wants to.

        Raises:
            BindError: The binding is closed.
        """
        self.train()

    def evaluate(self) -> Evaluation:
        """Run the evaluating function on the model.

        Raises:
            EvaluationError: There is none, or it returned no score.
            BindError: The binding is closed.
        """
        self._require_open()
        function = self._evaluator.evaluating_func
        if function is None:
            raise EvaluationError("this evaluator has no evaluating_func; create it with evaluating_func=")
        return evaluation_of(function(self._model))

    def close(self) -> None:
        """Give the model back as it was, apart from what training changed in its weights and buffers."""
        if not self._closed:
            self._closed = True
            self._pristine.restore()

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

    def _require_open(self) -> None:
        if self._closed:
            raise BindError("this binding is closed; bind the evaluator again")


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
