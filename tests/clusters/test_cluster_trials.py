"""Trials over Dask and Ray: the bits of a serial run, and each fault an error of its own trial."""

from __future__ import annotations

import hashlib
import random
from functools import partial

import pytest
import test_run_trials as local
import test_trial_chaos as chaos
import torch
import trial_material as material
from conftest import job_processes
from trial_material import Net, make_evaluator
from trial_processes import wait_for, wait_until_gone

import rebind
from rebind.runtime.pools import Briefing, Job


@pytest.fixture(scope="module")
def evaluator():
    return make_evaluator()


@pytest.fixture(scope="module")
def warm(make_pool):
    """A pool whose processes stay: each of them imports torch when it starts."""
    with make_pool() as pool:
        yield pool


@pytest.fixture(scope="module")
def ran(warm, evaluator):
    """The trials of one machine over an engine: {name: result}."""
    faults = local.fault_trials([*local.FAULTS, *local.DEATHS])
    run = rebind.run_trials(evaluator, local.TRIALS, warm, seed=3, state_dicts=True)
    results = {result.name: result for result in run}
    more = rebind.run_trials(evaluator, faults, warm, retries=0)
    results |= {result.name: result for result in more}
    assert len(results) == len(local.TRIALS) + len(faults)
    return results


@pytest.fixture(scope="module")
def serial(evaluator):
    run = rebind.run_trials(evaluator, local.TRIALS, rebind.SerialPool(), seed=3, state_dicts=True)
    return {result.name: result for result in run}


def test_an_engine_gives_the_bits_of_a_serial_run(ran, serial):
    """Score, value and every weight are equal."""
    for name, one in serial.items():
        other = ran[name]
        assert other.error is None, repr(other.error.__cause__)
        assert (one.score, one.info, one.value) == (other.score, other.info, other.value)
        assert all(torch.equal(weight, other.state_dict[key]) for key, weight in one.state_dict.items())


@pytest.mark.parametrize("name", [*local.FAULTS, *local.DEATHS])
def test_each_fault_is_the_typed_error_that_it_is_on_one_machine(ran, name):
    """Type and message are those of the local pool; the trials beside it are untouched."""
    kind, told = {**local.FAULTS, **local.DEATHS}[name]
    assert type(ran[name].error) is kind
    assert told in str(ran[name].error)
    assert ran["fine"].error is None


def test_a_killed_trial_is_begun_again_by_the_pool_and_not_by_the_engine(warm, evaluator, tmp_path):
    """It is counted once: `attempts` is the number of times that it ran."""
    task = partial(material.die_until, tmp_path / "marker")
    trials = [rebind.Trial(model=Net, name="victim", task=task)]
    (result,) = rebind.run_trials(evaluator, trials, warm)
    assert (result.score, result.attempts, result.error) == (1.0, 2, None)


def test_a_trial_that_runs_can_be_cancelled(warm, evaluator):
    """Its process is killed; the others go on."""
    trials = [
        rebind.Trial(model=Net, name="quick", task=rebind.evaluate),
        rebind.Trial(model=Net, name="hangs", task=material.hangs),
        rebind.Trial(model=Net, name="later", task=rebind.evaluate),
    ]
    results = rebind.run_trials(evaluator, trials, warm)
    assert next(results).name == "quick"
    results.cancel("hangs")
    rest = {result.name: result for result in results}
    assert isinstance(rest["hangs"].error, rebind.TrialCancelledError)
    assert rest["later"].error is None


def test_files_are_copied_where_the_workers_lack_them(warm, monkeypatch, tmp_path):
    """A worker that cannot open a path is sent the content, and gets exactly that."""
    content = random.Random(1).randbytes(3 << 20)
    held = tmp_path / "held"
    held.write_bytes(content)
    digest = rebind.runtime.pools.addresses.address(held)
    lacking = tmp_path / "lacking"  # what a path means on another machine
    monkeypatch.setattr(type(warm), "_assignment", _with_path(type(warm)._assignment, str(lacking)))
    warm.start(Briefing("pool_jobs:digest_of_files"))
    for number in range(3):
        warm.submit(Job(number, b"", {digest: str(held)}))
    outcomes = [warm.next_outcome() for _ in range(3)]
    warm.stop()
    assert [bytes(outcome.answer) for outcome in outcomes] == [
        hashlib.sha256(content).hexdigest().encode()
    ] * 3


def _with_path(assign, path):
    def assigned(pool, job):
        return assign(pool, Job(job.id, job.payload, dict.fromkeys(job.files, path), job.timeout))

    return assigned


def test_a_run_that_is_left_early_kills_its_trials(warm, evaluator, tmp_path):
    """A trial that hangs is killed with the run, although the engine lets tasks run on."""
    told = tmp_path / "process"
    trials = [
        rebind.Trial(model=Net, name="quick", task=rebind.evaluate),
        rebind.Trial(model=Net, name="hangs", task=partial(material.tells_its_process_and_hangs, told)),
    ]
    results = rebind.run_trials(evaluator, trials, warm)
    quick = next(results)
    assert quick.name == "quick"
    wait_for(told.exists, seconds=60)
    results.close()
    again = rebind.run_trials(evaluator, [rebind.Trial(model=Net, task=rebind.evaluate)] * 2, warm)
    assert [result.error for result in again] == [None, None], "both slots are free again"
    assert not wait_until_gone({int(told.read_text())}, seconds=5), "the trial that hung was killed"
    assert quick.process_id in job_processes(), "and the worker that had done its trial was not"


@pytest.mark.timeout(600)
def test_trials_with_2_mib_each_way_survive_kills_at_random(warm, tmp_path):
    """All of them, byte-exact over an engine as well, each begun at most 1 + retries times."""
    assert chaos.survive(warm, job_processes, tmp_path, count=100, seed=3)


@pytest.mark.timeout(600)
def test_trials_with_faults_in_a_tenth_are_all_accounted_for(warm):
    """Each fault is its own trial's, in any order."""
    chaos.soak(warm, count=200, seed=5)
