"""Every way to die at every stage of a trial: no result is lost, nothing is left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import pytest
from trial_material import Net, make_evaluator

import rebind
from rebind.evaluator_schema.errors import (
    TrialFailedError,
    TrialTimeoutError,
    UnpicklableResultError,
    UnpicklableTrialError,
    WorkerDiedError,
)


def end(how):
    match how:
        case "raise":
            raise LookupError("as asked")
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            time.sleep(3600)


class AtPickle:
    def __call__(self, binding):
        return 1.0

    def __reduce__(self):
        raise LookupError("as asked")


class AtUnpickle:
    def __init__(self, how):
        self.how = how

    def __call__(self, binding):
        return 1.0

    def __reduce__(self):
        return end, (self.how,)


class AtRun:
    def __init__(self, how):
        self.how = how

    def __call__(self, binding):
        end(self.how)


class Result:
    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        end(self.how)


class AtResult(AtRun):
    def __call__(self, binding):
        return Result(self.how)


STAGES = {"unpickle": AtUnpickle, "run": AtRun, "result": AtResult}
RAISED = {"unpickle": UnpicklableTrialError, "run": TrialFailedError, "result": UnpicklableResultError}
WAYS = {
    "exit": WorkerDiedError,
    "kill": WorkerDiedError,
    "segfault": WorkerDiedError,
    "hang": TrialTimeoutError,
}


def crash_table(pool, ways=("raise", *WAYS)):
    """Run the table with as many sound trials in between; returns what each one ended with."""
    trials = [rebind.Trial(model=Net, name="pickle raise", task=AtPickle())]
    for stage, task in STAGES.items():
        for way in ways:
            limit = 1.0 if way == "hang" else None
            trials.append(rebind.Trial(model=Net, name=f"{stage} {way}", task=task(way), timeout=limit))
            trials.append(rebind.Trial(model=Net, name=f"{stage} {way}, beside", task=rebind.evaluate))
    results = list(rebind.run_trials(make_evaluator(), trials, pool, retries=0))
    assert len(results) == len(trials)
    found = {result.name: type(result.error) for result in results}
    assert len(found) == len(trials)
    return found


def expected(ways=("raise", *WAYS)):
    """What each trial of the table has to end with."""
    told = {"pickle raise": UnpicklableTrialError}
    for stage in STAGES:
        for way in ways:
            told[f"{stage} {way}"] = WAYS.get(way, RAISED[stage])
            told[f"{stage} {way}, beside"] = type(None)
    return told


def test_every_stage_at_which_a_trial_raises_is_told_in_this_process():
    """The part of the table that a serial pool can survive."""
    assert crash_table(rebind.SerialPool(), ["raise"]) == expected(["raise"])


@pytest.mark.long
def test_every_way_to_die_at_every_stage_costs_its_own_trial_only():
    """No result is lost and no process is left, whatever ends where."""
    assert crash_table(rebind.LocalPool(workers=2)) == expected()
