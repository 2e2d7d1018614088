"""Long runs of trials under random faults: each gives one result, and nothing grows."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import trial_material as material
from chaos import Chaos
from torch import nn
from trial_material import make_evaluator
from trial_processes import left_files, marked_processes, wait_until_gone

import rebind

HERE = Path(__file__).parent
NUMBERS = (2 << 20) // 8
RETRIES = 3


class Large(nn.Module):
    """Two MiB of numbers, made from a seed."""

    def __init__(self, seed):
        super().__init__()
        self.only = nn.Linear(1, 1)
        self.register_buffer("numbers", numbers(seed))


def numbers(seed):
    return torch.randint(1 << 62, (NUMBERS,), generator=torch.Generator().manual_seed(seed))


def answer(folder, name, binding):
    """As many bytes as came, made from them; each call leaves a byte in the trial's file."""
    with (folder / name).open("ab") as file:
        file.write(b".")
    return binding.model.numbers ^ 1


def nothing(model, optimizers, criterion):
    pass


def large_evaluator():
    model = nn.Sequential()
    model.only = nn.Linear(1, 1)
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    return rebind.TorchEvaluator(nothing, optimizer, nn.functional.mse_loss, model=model)


def survive(pool, processes, folder, count, seed):
    """Run trials while one of the processes is killed now and then; returns how many were."""
    seeds = {f"t{n}": n for n in range(count)}
    # A module and not a factory: its bytes go to the worker.
    trials = [
        rebind.Trial(model=Large(n), name=name, task=partial(answer, folder, name))
        for name, n in seeds.items()
    ]
    seen = set()
    with Chaos(processes, seed) as chaos:
        for result in rebind.run_trials(large_evaluator(), trials, pool, retries=RETRIES):
            assert result.error is None, result.error
            begun = (folder / result.name).stat().st_size
            assert 1 <= begun <= result.attempts <= 1 + RETRIES
            assert torch.equal(result.value, numbers(seeds[result.name]) ^ 1)
            assert result.name not in seen
            seen.add(result.name)
            chaos.saw_a_result()
    assert seen == seeds.keys()
    return chaos.killed


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(6))
def test_400_trials_with_2_mib_each_way_survive_kills_at_random(seed, tmp_path):
    """400 of 400, byte-exact, each begun at most 1 + retries times."""
    pool = rebind.LocalPool(workers=2)
    killed = survive(pool, lambda: pool.process_ids, tmp_path, count=400, seed=seed)
    print(f"{killed} workers killed")
    assert killed


def memory():
    gc.collect()
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


FAULTY = {
    "raises": rebind.TrialFailedError,
    "raises_unpicklable": rebind.TrialFailedError,
    "returns_unpicklable": rebind.UnpicklableResultError,
    "returns_what_fails_to_unpickle": rebind.UnpicklableResultError,
    "exits": rebind.WorkerDiedError,
    "is_killed": rebind.WorkerDiedError,
    "segfaults": rebind.WorkerDiedError,
}


def soak(pool, count, seed):
    """Run trials of which a tenth go wrong; returns by how many MiB this process grew after the first 300."""
    chance = random.Random(seed)
    plan = {f"t{n}": chance.choice([*FAULTY]) if chance.random() < 0.1 else None for n in range(count)}
    trials = [
        rebind.Trial(
            model=material.Net, name=name, task=getattr(material, fault) if fault else rebind.evaluate
        )
        for name, fault in plan.items()
    ]
    seen, early = {}, memory()
    for result in rebind.run_trials(make_evaluator(), trials, pool, retries=0):
        assert result.name not in seen
        seen[result.name] = type(result.error)
        if len(seen) == 300:
            early = memory()
    assert seen == {name: FAULTY.get(fault, type(None)) for name, fault in plan.items()}
    return memory() - early


@pytest.mark.long
@pytest.mark.timeout(900)
def test_2000_trials_with_faults_in_a_tenth_are_all_accounted_for_in_flat_memory():
    """Each fault is its own trial's, in any order, and this process does not grow."""
    grown = soak(rebind.LocalPool(workers=2), count=2000, seed=11)
    print(f"grown by {grown:.1f} MiB")
    assert grown < 16


PARENT = """
import sys, rebind, trial_material as m
trials = [rebind.Trial(model=m.Net, name="quick", task=rebind.evaluate)]
trials += [rebind.Trial(model=m.SHARED, name=f"hangs {n}", task=m.hangs) for n in range(2)]
with rebind.LocalPool(workers=2) as pool:
    results = rebind.run_trials(m.make_evaluator(), trials[: 1 if sys.argv[1] == "idle" else 3], pool)
    next(results)
    print("ready", flush=True)
    sys.stdin.readline() if sys.argv[1] == "idle" else next(results)
"""


@pytest.mark.long
@pytest.mark.parametrize("state", ["idle", "busy"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_parent_that_ends_leaves_no_worker_and_no_file(state, end):
    """In the midst of a run or after it: after SIGKILL, the kernel frees everything with it."""
    before = marked_processes(), left_files()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    command = [sys.executable, "-c", PARENT, state]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment, **pipes) as parent:
        assert parent.stdout.readline() == b"ready\n"
        workers = marked_processes() - before[0] - {parent.pid}
        assert workers
        parent.send_signal(end)
    assert parent.returncode == -end
    assert not wait_until_gone(workers)
    assert left_files() == before[1]
