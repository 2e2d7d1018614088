"""CUDA devices leased to trials: the logic needs none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trial_material import Net, make_evaluator

import rebind
from rebind.runtime.trials.leases import Leases, leases_for, trial_devices_set


@given(st.integers(0, 9), st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=40))
def test_no_device_is_lent_twice_and_none_is_lost(count, steps):
    """Whatever is taken and given back, in any order."""
    leases, held = Leases(range(count)), []
    for gives, number in steps:
        if gives and held:
            leases.give(held.pop(number % len(held)))
        elif (lease := leases.take(number)) is not None:
            held.append(lease)
            assert len(lease) == number
        else:
            assert count - sum(map(len, held)) < number
        lent = [device for lease in held for device in lease]
        assert len(set(lent)) == len(lent)
    for lease in held:
        leases.give(lease)
    assert leases.take(count) == tuple(range(count))


def test_a_device_that_is_not_lent_is_not_taken_back():
    """A mistake in the accounts is told, and not made worse."""
    with pytest.raises(ValueError, match="not all lent"):
        Leases(range(2)).give((1,))


def test_each_worker_of_an_engine_has_devices_of_its_own():
    """They count from 0 in each worker, so they never run out here."""
    pool = rebind.SerialPool()
    pool.on_this_machine = False
    leases = leases_for(pool, 2)
    assert [leases.take(2) for _ in range(5)] == [(0, 1)] * 5


def test_a_run_that_needs_more_devices_than_there_are_is_refused(monkeypatch):
    """Before anything starts, with what was asked for and what there is."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    trials = [rebind.Trial(model=Net)]
    with pytest.raises(rebind.TrialError, match="gpus_per_trial is 2, and this machine has 1"):
        next(rebind.run_trials(make_evaluator(), trials, rebind.SerialPool(), gpus_per_trial=2))
    with pytest.raises(rebind.TrialError, match="gpus_per_trial is -1"):
        rebind.run_trials(make_evaluator(), trials, gpus_per_trial=-1)


def test_a_worker_that_sees_fewer_devices_says_so():
    """A lease that cannot be kept is the trial's error, and no trial runs on a wrong device."""
    there = torch.cuda.device_count()
    with pytest.raises(rebind.TrialError, match="sees"), trial_devices_set([there]):
        pytest.fail("the block must not run")
    assert rebind.trial_devices() == ()


def devices(binding):
    place = next(binding.model.parameters()).device
    return {"model": str(place), "leased": [str(device) for device in rebind.trial_devices()]}


@pytest.mark.cuda
def test_each_trial_has_its_model_on_its_own_device():
    """Trials that run at the same time have different devices."""
    trials = [rebind.Trial(model=Net, task=devices) for _ in range(4)]
    results = rebind.run_trials(make_evaluator(), trials, rebind.LocalPool(workers=2), gpus_per_trial=1)
    for result in results:
        assert result.error is None, repr(result.error.__cause__)
        assert result.value["leased"] == [result.value["model"]]
