"""Trainings in two processes that work together: data parallel, and sharded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_JOBS = Path(__file__).with_name("parallel_jobs.py")


def run_two(arguments, folder, seconds=150):
    """Run a script in two processes that find each other by a file; fail if one of them does."""
    store = str(folder / "store")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments, str(rank), store],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert (process.returncode, out.strip()) == (0, "done"), err[-3000:]


JOBS = (
    "data_parallel_inside_of_the_training_function",
    "data_parallel_within_limits",
    "sharded_before_it_is_bound",
    "sharded_with_sliced_state",
    "sharded_inside_of_the_training_function",
    "sharded_inside_with_the_optimizer_put_over",
)
FURTHER_JOBS = (
    "data_parallel_with_sliced_state",
    "data_parallel_with_patches",
    "sharded_with_carried_state",
    "sharded_with_patches",
    "sharded_and_resumed",
)


@pytest.mark.parametrize("job", JOBS)
def test_two_processes_train_as_without_rebind(job, tmp_path):
    """What the job says, in both processes; it compares with the same code without rebind, to the bit."""
    run_two([str(_JOBS), job, "sgd"], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
    ("job", "optimizer"),
    [*((job, "adamw") for job in JOBS), *((job, kind) for job in FURTHER_JOBS for kind in ("sgd", "adamw"))],
)
def test_two_processes_train_as_without_rebind_in_further_ways(job, optimizer, tmp_path):
    """Likewise."""
    run_two([str(_JOBS), job, optimizer], tmp_path)


def test_every_job_is_run():
    """The list is that of the script."""
    jobs = re.findall(r"^@job\ndef (\w+)", _JOBS.read_text(), re.MULTILINE)
    assert sorted(jobs) == sorted((*JOBS, *FURTHER_JOBS))
