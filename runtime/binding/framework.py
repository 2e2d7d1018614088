"""What differs between the kinds of evaluators, behind the one interface that a binding drives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from torch.nn import Module

from ...evaluator_schema.errors import BindError
from ...evaluator_schema.evaluator import Evaluator
from ..naming.inventory import Inventory
from ..naming.matching import Match, Missing
from ..naming.renaming import Rename
from ..patching.loss_patches import PatchedCriterion
from ..patching.step_tasks import StepTasks
from .budget import Budget
from .evaluation import Evaluation
from .reinitialise import Reinitialised


@dataclass(frozen=True)
class Training:
    """One training of a binding, as a framework gets it.

    Attributes:
        model: The model.
        built: Its optimizers and schedulers.
        criterion: The framework's criterion with the patches around it, if it has one.
        steps: The optimizers, each with the tasks around its steps.
        budget: Counts the steps and ends the training; it is open while the training runs.
        max_steps: How many steps each optimizer may make; None for no limit.
        max_epochs: How many epochs there may be; None for no limit.
        tell_epoch: To be called with the number of completed epochs, where the framework sees them.
    """

    model: Module
    built: Reinitialised
    criterion: PatchedCriterion | None
    steps: Sequence[StepTasks]
    budget: Budget
    max_steps: int | None
    max_epochs: int | None
    tell_epoch: Callable[[int], None]


class Framework(ABC):
    """How one kind of evaluator trains and evaluates a model. A binding has one of its own.

    Patches, tasks, hooks, budgets, events and restoring are the binding's, and the same for all kinds.
    """

    criterion: Callable[..., Any] | None = None
    """What loss patches go around."""
    may_skip_loss: ClassVar[bool] = False
    """Whether the criterion may return None for a batch that is not trained on."""
    budget: ClassVar[type[Budget]] = Budget
    """What counts the steps of one training, and ends it."""

    @abstractmethod
    def check_model(self, model: Module) -> None:
        """Make sure that a model is of a kind that can be trained.

        Raises:
            BindError: It is not.
        """

    @abstractmethod
    def build(
        self,
        inventory: Inventory,
        *,
        rename: Rename | None,
        missing: Missing,
        current: Match | None,
    ) -> Reinitialised:
        """Build fresh optimizers and schedulers on a model; see `reinitialise`."""

    @abstractmethod
    def check_limits(self, max_epochs: int | None) -> None:
        """Make sure that a training can be limited so.

        Raises:
            TrainingError: It cannot.
        """

    @abstractmethod
    def train(self, training: Training) -> None:
        """Train."""

    @abstractmethod
    def evaluate(self, model: Module) -> Evaluation:
        """Evaluate."""

    @abstractmethod
    def dummy_input(self, model: Module) -> Any:
        """Give an example input, on whatever device."""


# Each kind of evaluator with its framework, loaded when an evaluator of the kind is first bound.
_FRAMEWORKS = {
    "TorchEvaluator": "binding.native:Native",
    "LightningEvaluator": "lightning.framework:Lightning",
    "TransformersEvaluator": "transformers.framework:Transformers",
}


def framework_of(evaluator: Evaluator) -> Framework:
    """Give the framework for an evaluator.

    Raises:
        BindError: It is no evaluator, or none of a kind that can be bound.
    """
    for cls in type(evaluator).__mro__:
        home = _FRAMEWORKS.get(cls.__name__)
        if home is not None and Evaluator.kinds().get(cls.__name__) is cls:
            module, _, name = home.partition(":")
            framework: Framework = getattr(import_module(f"...{module}", __name__), name)(evaluator)
            return framework
    raise BindError(f"bind takes an evaluator first, not {type(evaluator).__name__}")
