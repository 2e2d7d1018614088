"""The scripts of docs/distributed.md, by the command that stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_PAGE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
_SCRIPTS = re.findall(r"```python\n(.*?)```", _PAGE, re.DOTALL)
(_COMMAND,) = re.findall(r"```sh\ntorchrun (.*) train.py\n```", _PAGE)


def run(script, folder):
    """What each of the two processes prints."""
    (folder / "train.py").write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *_COMMAND.split(),
            # Otherwise what they print gets mixed up.
            *("--log-dir", str(folder / "logs"), "--redirects", "3"),
            "train.py",
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    logs = sorted((folder / "logs").rglob("std*.log"))
    assert done.returncode == 0, (done.stderr[-3000:], *(log.read_text()[-1000:] for log in logs))
    return [log.read_text().split() for log in logs if log.name == "stdout.log"]


def test_the_data_parallel_script_stops_together_and_learns(tmp_path):
    """Both processes end after the step at which one of them wished to, with equal weights."""
    first, second = run(_SCRIPTS[0], tmp_path)
    assert first == second
    steps, score, _ = first
    assert steps == "80"
    assert float(score) > 0.8


def test_the_sharded_script_goes_on_after_its_pruning(tmp_path):
    """Both processes have the same weights, and the state of three parameters was sliced."""
    first, second = run(_SCRIPTS[1], tmp_path)
    assert first == second
    assert first[:2] == ["100", "3"]


def test_there_are_no_other_scripts():
    assert len(_SCRIPTS) == 2


@pytest.mark.parametrize("script", _SCRIPTS)
def test_a_script_is_whole(script):
    """It compiles by itself and is of the kind that torchrun starts."""
    compile(script, "train.py", "exec")
    assert "init_process_group" in script
