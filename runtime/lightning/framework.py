"""Training and evaluating by Lightning, as a `LightningEvaluator` has it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch.nn import Module

from ...evaluator_schema.errors import BindError
from ...evaluator_schema.lightning_evaluator import LightningEvaluator
from ...evaluator_schema.lightning_kinds import Package, package_of
from ..binding.budget import Budget
from ..binding.evaluation import Evaluation
from ..binding.framework import Framework, Training
from ..binding.precision import keeping_precision
from ..binding.reinitialise import Reinitialised, reinitialise
from ..binding.training_step import training_step_of_a_trainer
from ..naming.inventory import Inventory
from ..naming.matching import Match, Missing
from ..naming.renaming import Rename
from .budget import FitBudget
from .configuring import ConfiguredModel, check_optimizers, configure
from .constructing import construct
from .evaluating import read_metrics, run_evaluation
from .fitting import fit, interruptible
from .residue import without_residue
from .sampling import sample_input


class Lightning(Framework):
    """Constructs a trainer and a data module for each training and each evaluation."""

    may_skip_loss = True
    budget: ClassVar[type[Budget]] = FitBudget

    def __init__(self, evaluator: LightningEvaluator) -> None:
        self._evaluator = evaluator
        self.criterion: Callable[..., Any] | None = training_step_of_a_trainer(
            "the training step of a LightningModule"
        )
        self._sampled: tuple[weakref.ref[Module], Any] | None = None

    def check_model(self, model: Module) -> None:
        """Take a LightningModule of the trainer's package, or one under `torch.compile`."""
        package = package_of(type(_module_of(model)), "LightningModule")
        if package is None:
            raise BindError(
                f"a LightningEvaluator is bound to a LightningModule, not to a {type(model).__name__}: the "
                "trainer calls its training_step; put the model into a LightningModule, as an attribute"
            )
        trainers = package_of(self._evaluator.trainer.target, "Trainer")
        if trainers not in (package, None):
            raise BindError(
                f"the evaluator's trainer is of {trainers}, and {type(model).__name__} is a LightningModule "
                f"of {package}; the two packages do not mix, so import both from one of them"
            )

    def build(
        self, inventory: Inventory, *, rename: Rename | None, missing: Missing, current: Match | None
    ) -> Reinitialised:
        """Build what the evaluator has recorded, or let the module's `configure_optimizers` do it."""
        evaluator, module = self._evaluator, _module_of(inventory.model)
        package = _package(module)
        if evaluator.optimizers is None:
            with without_residue(inventory.model):
                built = configure(
                    module,
                    inventory,
                    lambda: self._started(package, module),
                    rename=rename,
                    current=current,
                )
        else:
            plain = reinitialise(
                evaluator,
                inventory,
                evaluator.optimizers,
                evaluator.lr_schedulers,
                rename=rename,
                missing=missing,
                current=current,
            )
            options = tuple(evaluator.scheduler_options or ())
            built = ConfiguredModel(plain.optimizers, plain.lr_schedulers or [], plain.match, options)
        check_optimizers(package, module, built)
        return built

    def check_limits(self, max_epochs: int | None) -> None:
        """Take any limit: Lightning counts steps and epochs."""

    def train(self, training: Training) -> None:
        """Fit with a fresh trainer and data module."""
        module = _module_of(training.model)
        trainer, data_module = construct(self._evaluator)
        fit(_package(module), module, trainer, data_module, training)

    def evaluate(self, model: Module) -> Evaluation:
        """Test, or else validate, with a fresh trainer and data module."""
        module = _module_of(model)
        trainer, data_module = construct(self._evaluator)
        with keeping_precision(model), without_residue(model), interruptible():
            results = run_evaluation(_package(module), model, module, trainer, data_module)
        return read_metrics(results, self._evaluator.metric)

    def dummy_input(self, model: Module) -> Any:
        """Give the evaluator's own, or one from the data, which is read once for a model."""
        if self._evaluator.dummy_input is not None:
            return self._evaluator.dummy_input
        if self._sampled is None or self._sampled[0]() is not model:
            module = _module_of(model)
            with torch.random.fork_rng(devices=[]):
                _, data_module = construct(self._evaluator)
                sampled = sample_input(_package(module), module, data_module)
            self._sampled = weakref.ref(model), sampled
        return self._sampled[1]

    @contextmanager
    def _started(self, package: Package, module: Any) -> Iterator[None]:
        """Attach a trainer to a module, as a fit does before it asks for the optimizers."""
        trainer, data_module = construct(self._evaluator)
        trainer.strategy.connect(module)
        trainer.state.fn = import_module(f"{package}.trainer.states").TrainerFn.FITTING
        trainer.training = True
        trainer._data_connector.attach_data(module, datamodule=data_module)
        data_module.prepare_data()
        data_module.setup("fit")
        module.setup("fit")
        module.configure_model()
        yield
        module.teardown("fit")
        data_module.teardown("fit")


def _module_of(model: Any) -> Any:
    """Give the LightningModule that a model is, or that `torch.compile` has wrapped."""
    return model._modules.get("_orig_mod", model)


def _package(module: Any) -> Package:
    package = package_of(type(module), "LightningModule")
    assert package is not None  # noqa: S101 - `check_model` has seen it
    return package
