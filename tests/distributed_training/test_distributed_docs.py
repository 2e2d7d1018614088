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


# A thread of gloo may let go of a tensor of Python's when the interpreter is ending, and torch aborts
# the process then, whose work is done: with this line and none else, and it is torch's own matter.
_TORCHS_END = ["terminate", "called", "without", "an", "active", "exception"]


def run(script, folder):
    """What each of the two processes prints."""
    (folder / "train.py").write_text(script)
    for attempt in range(3):
        logs = folder / f"logs {attempt}"
        done = torchrun(folder, logs)
        printed, told = (
            [log.read_text().split() for log in sorted(logs.rglob(f"std{name}.log"))]
            for name in ("out", "err")
        )
        aborted = any(out and err == _TORCHS_END for out, err in zip(printed, told, strict=True))
        if done.returncode == 0 or not aborted:
            break
    assert done.returncode == 0, (done.stderr[-3000:], printed, told)
    return printed


def torchrun(folder, logs):
    """The script in two processes, with what each prints in a file of its own: it would get mixed up."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    options = [*_COMMAND.split(), "--log-dir", str(logs), "--redirects", "3"]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, "train.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


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
