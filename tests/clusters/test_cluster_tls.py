"""Dask with TLS, by the very commands and lines that the documentation shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from trial_material import Net, make_evaluator

import rebind

DOCUMENT = Path(__file__).parents[2] / "docs" / "trials.md"
SHOWN = "tls://scheduler:8786"
QUIET = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def write_certificates():
    """An authority and, signed by it, a certificate for each of three, in the working directory."""
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=authority",
            "-keyout", "ca-key.pem", "-out", "ca.pem")  # fmt: skip
    for name in ("scheduler", "worker", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}-key.pem", "-out", "request.pem")  # fmt: skip
        openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-days", "1", "-out", f"{name}.pem")  # fmt: skip


@pytest.fixture
def shown():
    """The section's code, and its commands by their second word."""
    _, _, text = DOCUMENT.read_text().partition("## Dask with TLS")
    (code,) = re.findall(r"```python\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    lines = re.findall(r"^\$ (dask .*)$", text.replace("\\\n", " "), re.MULTILINE)
    return code, {shlex.split(line)[1]: shlex.split(line) for line in lines}


@pytest.fixture
def scheduler(shown, tmp_path, monkeypatch):
    """The address of a scheduler with one worker, both started as shown."""
    pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    write_certificates()
    path = os.pathsep.join(str(entry) for entry in sys.path if entry)
    started = []

    def start(words, *more):
        command = [sys.executable, "-m", *words, *more, *QUIET]
        environment = {**os.environ, "PYTHONPATH": path}
        with Path(f"{words[1]}.log").open("wb") as log:
            started.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            )

    file, pause = tmp_path / "scheduler.json", threading.Event()
    start(shown[1]["scheduler"], "--port", "0", "--scheduler-file", str(file))
    try:
        while not file.exists() or not file.read_text():
            assert started[0].poll() is None, Path("scheduler.log").read_text()
            pause.wait(0.05)
        address = json.loads(file.read_text())["address"]
        start([address if word == SHOWN else word for word in shown[1]["worker"]], "--no-nanny")
        yield address
    finally:
        for process in started:
            process.terminate()
            process.wait()


def test_the_snippet_of_the_documentation_runs_trials_over_tls(scheduler, shown):
    """Nothing crosses in the clear, and who has no certificate is turned away."""
    assert scheduler.startswith("tls://")
    trials = [rebind.Trial(model=Net, name=name, task=rebind.evaluate) for name in "ab"]
    names = {"evaluator": make_evaluator(), "trials": trials, "rebind": rebind}
    exec(shown[0].replace(SHOWN, scheduler), names)
    assert [result.error for result in names["results"].finished] == [None, None]
    context = ssl.create_default_context(cafile="ca.pem")
    context.check_hostname = False
    host, _, port = scheduler.removeprefix("tls://").partition(":")
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain) as stranger,
    ):
        assert stranger.recv(1), "the scheduler speaks to anybody"
        pytest.fail("the scheduler speaks to anybody")
