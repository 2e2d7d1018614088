"""Trials with a LightningEvaluator in worker processes: the same weights as in this one, to the bit."""

import sys
from functools import partial
from pathlib import Path

import lightning.pytorch as unified
import pytest
import torch
from lightning_jobs import make, train_seeded
from lightning_material import LIGHTNINGS, UnifiedData, UnifiedNet, by_own_trainer, evaluator_of, net
from pytorch_lightning.callbacks import EarlyStopping

from rebind import LocalPool, SerialPool, Trial, run_trials

sys.path.insert(0, str(Path(__file__).parent))


def states(evaluator, trials, pool):
    found = {}
    with run_trials(evaluator, trials, pool=pool, state_dicts=True) as results:
        for result in results:
            if result.error is not None:
                raise result.error
            found[result.name] = result.state_dict
    return found


@pytest.mark.parametrize("make_pool", [SerialPool, partial(LocalPool, workers=2)])
def test_each_form_of_configure_optimizers_trains_in_a_worker_as_the_users_own_trainer_does(make_pool):
    evaluator = evaluator_of(callbacks=[EarlyStopping("val_loss", patience=99)])
    trials = [Trial(model=partial(make, form), task=train_seeded, name=form) for form in LIGHTNINGS]
    found = states(evaluator, trials, make_pool())
    for form in LIGHTNINGS:
        expected = by_own_trainer(form).state_dict()
        assert [name for name, value in expected.items() if not torch.equal(found[form][name], value)] == []


def test_the_unified_package_and_recorded_optimizers_work_in_a_worker():
    evaluator = evaluator_of(pack=unified, data=UnifiedData, model=net("dict and config", kind=UnifiedNet))
    trial = Trial(model=partial(net, kind=UnifiedNet), task=train_seeded, name="unified")
    found = states(evaluator, [trial], LocalPool(workers=1))["unified"]
    expected = by_own_trainer("dict and config").state_dict()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
