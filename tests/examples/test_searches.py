"""The searches of the examples, against the same trainings without the library."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import rebind

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
optuna = pytest.importorskip("optuna")
import optuna_search as example  # noqa: E402 - found by the line above
from optuna.trial import TrialState  # noqa: E402
from search_by_hand import by_hand  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dense():
    """Evaluator and weights; Optuna's log stays quiet."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    evaluator, model, score = example.trained()
    assert score > 0.9
    return evaluator, model


def test_a_study_through_bindings_is_the_one_of_a_loop_by_hand(dense):
    """The same suggestions, values at each rung, early ends and results, to the bit."""
    study = example.search(*dense, trials=14)
    plain = optuna.create_study(direction="maximize", sampler=example.sampler(0), pruner=example.pruner())

    def objective(trial):
        sparsities = {name: trial.suggest_float(name, 0.3, 0.95) for name in example.LAYERS}
        values = []

        def rung(step, value):
            values.append(value)
            trial.report(value, step)
            return trial.should_prune()

        by_hand(dense[1], sparsities, trial.number, rung)
        if len(values) < example.STEPS // example.EVERY:
            raise optuna.TrialPruned
        return values[-1]

    plain.optimize(objective, n_trials=14)
    for ours, theirs in zip(study.trials, plain.trials, strict=True):
        assert (ours.params, ours.state, ours.value) == (theirs.params, theirs.state, theirs.value)
        assert ours.intermediate_values == theirs.intermediate_values
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.parametrize("pool", [rebind.SerialPool, rebind.LocalPool])
def test_trials_in_workers_end_early_where_the_study_says_so(dense, pool, tmp_path):
    """Each did what a loop by hand does with its sparsities, up to the step where it was stopped."""
    options = {} if pool is rebind.SerialPool else {"workers": 2}
    study = example.search_in_workers(*dense, 14, tmp_path / "journal", pool(**options))
    assert len(study.trials) == 14
    for trial in study.trials:
        told = trial.intermediate_values

        def rung(step, value, told=told):
            assert told[step] == value
            return step == max(told)

        left, right = by_hand(dense[1], trial.params, trial.number, rung)
        assert (trial.user_attrs["weights"], trial.user_attrs["accuracy"]) == (left, right)
        assert trial.user_attrs["steps"] == max(told)
        assert trial.state is (TrialState.COMPLETE if max(told) == example.STEPS else TrialState.PRUNED)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_nothing_beats_the_pareto_front(dense, tmp_path):
    """Each finished trial is on it, or something on it is as small and as accurate; and it is drawn."""
    study = example.search(*dense, trials=10)
    done = study.get_trials(states=[TrialState.COMPLETE])
    front = example.pareto_front(done)

    def beats(one, other):
        a, b = one.user_attrs, other.user_attrs
        return a["weights"] <= b["weights"] and a["accuracy"] >= b["accuracy"]

    assert all(any(beats(best, trial) for best in front) for trial in done)
    assert not any(beats(one, other) for one in front for other in front if one is not other)
    example.plot(study, (1864, 0.96), str(tmp_path / "front.png"))
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def killed_once(marker, journal, binding):
    """Do a trial of the study; the first process to get there is killed in the midst of it."""
    if not marker.exists():
        marker.touch()
        binding.on_event(lambda event: event.step == 15 and os.kill(os.getpid(), signal.SIGKILL))
    example.one_trial(journal, 0, binding)


def test_the_trial_of_a_killed_worker_is_begun_again_as_another_one_of_the_study(dense, tmp_path):
    """Optuna keeps the former as running, with what it had told; the latter is finished."""
    evaluator, model = dense
    study = example.study_in(tmp_path / "journal", 0)
    task = partial(killed_once, tmp_path / "marker", tmp_path / "journal")
    trials = [rebind.Trial(model=model, task=task, name="victim")]
    (result,) = rebind.run_trials(evaluator, trials, rebind.LocalPool(workers=1))
    assert (result.error, result.attempts) == (None, 2)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.COMPLETE]
    assert list(study.trials[0].intermediate_values) == [10]
