"""Trials with a TransformersEvaluator in worker processes: the same weights as in this one, to the bit."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import trainer_material as material
from trainer_jobs import narrow, penalized, train_and_score, wide

from rebind import LocalPool, SerialPool, Trial, bind, run_trials

sys.path.insert(0, str(Path(__file__).parent))


def outcomes(evaluator, trials, pool):
    """Give the weights and the score of each trial."""
    found = {}
    with run_trials(evaluator, trials, pool=pool, state_dicts=True) as results:
        for result in results:
            if result.error is not None:
                raise result.error
            found[result.name] = result.state_dict, result.score
    return found


def assert_equal(state, other):
    assert state.keys() == other.keys()
    assert [name for name in other if not torch.equal(state[name], other[name])] == []


@pytest.mark.parametrize("make_pool", [SerialPool, partial(LocalPool, workers=2)])
@pytest.mark.parametrize("way", ["default", "groups"])
def test_a_worker_trains_to_the_bits_of_the_users_own_trainer(way, make_pool):
    evaluator = material.evaluator_of(way, given={"compute_metrics": material.accuracy})
    trials = [Trial(model=make, task=train_and_score, name=make.__name__) for make in (narrow, wide)]
    found = outcomes(evaluator, trials, make_pool())
    for make in (narrow, wide):
        state, score = found[make.__name__]
        expected, _ = material.by_own_trainer(make(), way)
        assert_equal(state, expected.state_dict())
        assert score == own_accuracy(expected)


def own_accuracy(model):
    trainer = material.Trainer(
        model,
        material.arguments(),
        eval_dataset=material.Rows(8, seed=1),
        compute_metrics=material.accuracy,
    )
    return trainer.evaluate()["eval_default"]


def test_patches_and_tasks_in_a_worker_are_those_of_this_process():
    evaluator = material.evaluator_of("optimizer", given={"compute_metrics": material.accuracy})
    trial = Trial(model=wide, task=penalized, name="penalized")
    state, score = outcomes(evaluator, [trial], LocalPool(workers=1))["penalized"]
    with bind(evaluator, wide()) as binding:
        assert penalized(binding).score == score
        assert_equal(state, binding.model.state_dict())
    plain, _ = material.by_own_trainer(wide(), "optimizer", max_steps=5)
    assert not torch.equal(plain.fc1.weight, state["fc1.weight"])
