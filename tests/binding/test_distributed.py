"""Models that two processes train together, on gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from binding_material import net, record

import rebind

_JOBS = Path(__file__).with_name("distributed_jobs.py")


def run_two(job, folder):
    """Run a job in two processes and give what each wrote."""
    rebind.save(record(net()), folder / "evaluator")
    processes = [
        subprocess.Popen(
            [sys.executable, _JOBS, job, str(rank), folder / "store", folder / "evaluator"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


@pytest.mark.parametrize(
    "job",
    [
        "data_parallel",
        pytest.param("compiled_data_parallel", marks=pytest.mark.long),
        pytest.param("data_parallel_compiled", marks=pytest.mark.long),
        pytest.param("sharded", marks=pytest.mark.long),
        pytest.param("sharded_by_the_first_fsdp", marks=pytest.mark.long),
    ],
)
def test_two_processes_train_as_if_constructed_by_hand(job, tmp_path):
    """On DDP, FSDP and both nestings with torch.compile: by name, by identity, and with carried state."""
    for code, out, err in run_two(job, tmp_path):
        assert (code, out.strip().endswith("equal")) == (0, True), err[-3000:]
