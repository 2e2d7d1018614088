"""A search with Optuna for the sparsity of each layer; bad trials are stopped early, in worker processes.

A small CNN is trained on handwritten digits. Each trial makes it sparse, as Optuna suggests, and finetunes
it. While it does, it reports accuracy and size to Optuna, and ends early where Optuna's pruner says so.

Writes `optuna_search.png` (accuracy against size, with the Pareto front) into the current folder.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from digits import SmallCNN, make_evaluator
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from torch import nn
from torch.nn.utils import prune

import rebind

LAYERS = ("conv1", "conv2", "fc")
STEPS, EVERY = 60, 10
SIZE_MATTERS = 0.2  # all of the weights cost as much as this share of the test images
PLOT_FILE = "optuna_search.png"


def nonzero(model: nn.Module) -> int:
    """Count the weights of the layers that are not zero."""
    return sum(int(model.get_submodule(name).weight.count_nonzero()) for name in LAYERS)


def objective(binding: rebind.Binding, trial: optuna.Trial) -> float:
    """Make the bound model sparse and finetune it: accuracy, less what its size costs."""
    size = sum(binding.model.get_submodule(name).weight.numel() for name in LAYERS)
    for name in LAYERS:
        sparsity = trial.suggest_float(name, 0.3, 0.95)
        prune.l1_unstructured(binding.model.get_submodule(name), "weight", sparsity)
    trial.set_user_attr("weights", nonzero(binding.model))
    torch.manual_seed(trial.number)  # so that anyone can do the same trial again
    report_steps(binding, trial, lambda accuracy: accuracy - SIZE_MATTERS * nonzero(binding.model) / size)
    binding.train(max_steps=STEPS)
    trial.set_user_attr("steps", binding.steps)
    if binding.steps < STEPS:
        raise optuna.TrialPruned
    return trial.study.trials[trial.number].intermediate_values[STEPS]


def report_steps(binding: rebind.Binding, trial: optuna.Trial, value_of: Callable[[float], float]) -> None:
    """Evaluate after every so many steps, tell Optuna, and end the training where it asks for that."""

    def listen(event: Any) -> None:
        if event.kind == "step" and event.step % EVERY == 0:
            accuracy, _ = binding.evaluate()
            trial.set_user_attr("accuracy", accuracy)
            trial.report(value_of(accuracy), event.step)
            if trial.should_prune():
                binding.stop()

    binding.on_event(listen)


def search(evaluator: rebind.Evaluator, dense: nn.Module, trials: int) -> optuna.Study:
    """Search in this process."""
    study = optuna.create_study(direction="maximize", sampler=sampler(0), pruner=pruner())

    def run(trial: optuna.Trial) -> float:
        with rebind.bind(evaluator, copy.deepcopy(dense)) as binding:
            return objective(binding, trial)

    study.optimize(run, n_trials=trials)
    return study


def search_in_workers(
    evaluator: rebind.Evaluator, dense: nn.Module, trials: int, journal: Path, pool: rebind.Pool
) -> optuna.Study:
    """Search in worker processes, which share a study through its journal."""
    study = study_in(journal, 0)
    wanted = [
        rebind.Trial(model=dense, task=partial(one_trial, journal, seed), name=f"search {seed}")
        for seed in range(trials)
    ]
    for result in rebind.run_trials(evaluator, wanted, pool=pool):
        if result.error is not None:
            raise result.error
    return study


def one_trial(journal: Path, seed: int, binding: rebind.Binding) -> None:
    """What a worker does: ask the study for a trial, do it, and tell the study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study_in(journal, seed).optimize(partial(objective, binding), n_trials=1)


def study_in(journal: Path, seed: int) -> optuna.Study:
    """Open the study of a journal; the first one to do so makes it."""
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="sparsity",
        direction="maximize",
        load_if_exists=True,
        sampler=sampler(seed),
        pruner=pruner(),
    )


def sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Give what suggests sparsities. Trials that run side by side keep away from each other."""
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=6, constant_liar=True)


def pruner() -> optuna.pruners.BasePruner:
    """Give what stops a trial that is among the worst fourth at the same step of those that were finished."""
    return optuna.pruners.PercentilePruner(75.0, n_startup_trials=4, n_warmup_steps=EVERY)


def pareto_front(trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """Give the trials than which none is at once smaller and as accurate, by size."""
    front: list[optuna.trial.FrozenTrial] = []
    by_size = sorted(trials, key=lambda one: (one.user_attrs["weights"], -one.user_attrs["accuracy"]))
    for trial in by_size:
        if not front or trial.user_attrs["accuracy"] > front[-1].user_attrs["accuracy"]:
            front.append(trial)
    return front


def plot(study: optuna.Study, dense: tuple[int, float], file: str) -> None:
    """Draw accuracy against size: trials that were finished, those that were stopped, and the front."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="weights that are not zero", ylabel="accuracy")
    for state, style, label in (
        (TrialState.PRUNED, "x", "stopped early"),
        (TrialState.COMPLETE, "o", "done"),
    ):
        shown = study.get_trials(states=[state])
        axes.plot(
            [trial.user_attrs["weights"] for trial in shown],
            [trial.user_attrs["accuracy"] for trial in shown],
            style,
            label=label,
        )
    front = pareto_front(study.get_trials(states=[TrialState.COMPLETE]))
    axes.step(
        [trial.user_attrs["weights"] for trial in front],
        [trial.user_attrs["accuracy"] for trial in front],
        where="post",
        label="Pareto front",
    )
    axes.plot(*dense, "*", label="dense")
    axes.legend()
    figure.savefig(file, dpi=120)


def trained() -> tuple[rebind.Evaluator, nn.Module, float]:
    """Train a dense CNN; give its evaluator, the model and its accuracy."""
    torch.manual_seed(0)
    model = SmallCNN()
    evaluator = make_evaluator(model)
    with rebind.bind(evaluator, model) as binding:
        binding.train()
        accuracy, _ = binding.evaluate()
    return evaluator, model, accuracy


def main(trials: int = 40) -> None:
    """Search, print the Pareto front, and draw it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    evaluator, dense, accuracy = trained()
    with tempfile.TemporaryDirectory() as folder, rebind.LocalPool(workers=2) as pool:
        study = search_in_workers(evaluator, dense, trials, Path(folder, "journal"), pool)
        done = study.get_trials(states=[TrialState.COMPLETE])
        steps = sum(trial.user_attrs["steps"] for trial in study.trials)
        print(f"dense: {nonzero(dense)} weights, {accuracy:.3f}")
        print(f"{len(study.trials)} trials, {len(study.trials) - len(done)} of them stopped early")
        print(f"{steps} steps, {steps / (STEPS * len(study.trials)):.0%} of what all of them would take")
        for trial in pareto_front(done):
            sparsities = ", ".join(f"{name} {trial.params[name]:.0%}" for name in LAYERS)
            print(f"{trial.user_attrs['weights']} weights, {trial.user_attrs['accuracy']:.3f}: {sparsities}")
        plot(study, (nonzero(dense), accuracy), PLOT_FILE)
    print(f"Saved: {PLOT_FILE}")


if __name__ == "__main__":
    main()
