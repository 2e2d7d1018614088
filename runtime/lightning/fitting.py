"""One fit by Lightning, with the optimizers of a binding and its patches."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ...evaluator_schema.errors import TrainingError
from ...evaluator_schema.lightning_kinds import Package
from ..binding.framework import Training
from ..patching.loss_patches import PatchedCriterion, going_around
from .budget import FitBudget
from .configuring import ConfiguredModel, lightning_configs, stand_in_optimizers
from .following import following
from .residue import without_residue


def fit(package: Package, module: Any, trainer: Any, data_module: Any, training: Training) -> None:
    """Fit a module with a fresh trainer.

    What is particular to a binding goes onto the trainer, which is its own: a callback, and methods of its
    strategy (the documented place between the loops and the module). The module itself is not touched.
    """
    budget, criterion, built = training.budget, training.criterion, training.built
    assert isinstance(budget, FitBudget)  # noqa: S101 - what our own framework made
    assert isinstance(built, ConfiguredModel)  # noqa: S101 - likewise
    assert criterion is not None  # noqa: S101 - likewise
    _check_strategy(package, trainer.strategy)
    _set_limits(trainer, training)
    _give_optimizers(package, module, trainer.strategy, built)
    budget.follow(trainer)
    trainer.callbacks.append(following(package, training, budget))
    with (
        _patched_losses(module, trainer.strategy, criterion),
        without_residue(training.model),
        interruptible(),
    ):
        if not import_module(f"{package}.utilities.model_helpers").is_overridden(
            "configure_optimizers", module
        ):
            module.configure_optimizers = recorded_elsewhere
        trainer.fit(training.model, datamodule=data_module)


def recorded_elsewhere() -> None:
    """Stand where Lightning insists on a `configure_optimizers`, and the evaluator has the optimizers."""


def _check_strategy(package: Package, strategy: Any) -> None:
    strategies = import_module(f"{package}.strategies")
    sharding = (strategies.FSDPStrategy, strategies.DeepSpeedStrategy, strategies.ModelParallelStrategy)
    if isinstance(strategy, sharding):
        raise TrainingError(
            f"a {type(strategy).__name__} shards the parameters, and the optimizers of a binding are built "
            "on whole ones; use strategy='ddp', or a single device"
        )
    launchers = import_module(f"{package}.strategies.launchers.multiprocessing")
    if isinstance(strategy.launcher, launchers._MultiProcessingLauncher):
        raise TrainingError(
            "this strategy trains in copies of this process, where patches, tasks and counts of steps would "
            "be lost; use strategy='ddp', which starts the script once for each device"
        )


def _set_limits(trainer: Any, training: Training) -> None:
    """Put the limits that were asked for in the place of the trainer's own."""
    steps, epochs = training.max_steps, training.max_epochs
    if steps is None and epochs is None:
        return
    # Lightning counts the steps of all optimizers together.
    trainer.fit_loop.epoch_loop.max_steps = -1 if steps is None else steps * max(1, len(training.steps))
    trainer.fit_loop.max_epochs = -1 if epochs is None else epochs
    trainer.fit_loop.min_epochs = None
    trainer.fit_loop.epoch_loop.min_steps = None
    trainer.callbacks[:] = [one for one in trainer.callbacks if type(one).__name__ != "Timer"]


def _give_optimizers(package: Package, module: Any, strategy: Any, built: ConfiguredModel) -> None:
    """Let the strategy take the optimizers of the binding, where it would have them built."""

    def setup_optimizers(_: Any) -> None:
        _check_still_there(module, built)
        strategy.optimizers = list(built.optimizers) or stand_in_optimizers(package)
        strategy.lr_scheduler_configs = lightning_configs(package, module, built.lr_schedulers, built.options)

    strategy.setup_optimizers = setup_optimizers


def _check_still_there(module: Any, built: ConfiguredModel) -> None:
    recorded = {id(built.match.parameters[name]) for new in built.match.found.values() for name in new}
    gone = len(recorded - set(map(id, module.parameters())))
    if gone:
        raise TrainingError(
            f"{gone} of the parameters that are optimized are no longer in the {type(module).__name__}: its "
            "setup() or configure_model() made new ones, which would not be trained; let it make each layer "
            "once, only if it is not there yet"
        )


@contextmanager
def _patched_losses(module: Any, strategy: Any, criterion: PatchedCriterion) -> Iterator[None]:
    """Let the patches of a criterion go around the training step of a module."""
    training_step, backward = strategy.training_step, strategy.backward
    inputs: tuple[Any, ...] | None = None  # of a batch that the module optimizes by itself

    def patched_training_step(*args: Any, **kwargs: Any) -> Any:
        nonlocal inputs
        inputs = None if module.automatic_optimization else args
        return criterion(*args, **kwargs) if inputs is None else training_step(*args, **kwargs)

    def patched_backward(loss: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        if inputs is not None:
            with going_around(criterion, lambda *_: loss):
                loss = criterion(*inputs)
        return backward(loss, optimizer, *args, **kwargs)

    strategy.training_step, strategy.backward = patched_training_step, patched_backward
    with going_around(criterion, training_step):
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be a `KeyboardInterrupt`: Lightning turns it into the end of the program."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        if handler is not None and signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)
