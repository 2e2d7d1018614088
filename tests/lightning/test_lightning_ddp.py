"""Distributed training on two processes that Lightning's own strategy starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("ddp_script.py")


def test_two_processes_give_the_weights_of_one_at_the_same_global_batch(tmp_path):
    """Automatic and manual, with a loss patch, tasks, a limit of steps, and a stop that one process wants."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent), "GLOO_SOCKET_IFNAME": "lo"}
    found = {}
    for devices in (1, 2):
        path = tmp_path / str(devices)
        run = subprocess.run(
            [sys.executable, str(SCRIPT), str(devices), str(path)],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
        found[devices] = torch.load(path)
    for form in ("optimizer", "manual"):
        one, two = found[1][form], found[2][form]
        for name, value in one["weights"].items():
            torch.testing.assert_close(two["weights"][name], value, rtol=1e-5, atol=1e-6)
        assert len(one["gradients"]) == len(two["gradients"]) == 8
        for ours, theirs in zip(two["gradients"], one["gradients"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        assert two["score"] == pytest.approx(one["score"], rel=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
