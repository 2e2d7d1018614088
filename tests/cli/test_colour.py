"""Colour: on a terminal, where it is wanted. The terminals are real ones."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from cli_material import KEY, declared

import rebind as library
from rebind.runtime.cli import main

CODE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A pseudo-terminal: a stream to write to, and all that was written once the `with` block is left."""

    def __init__(self):
        outer, inner = pty.openpty()
        self.stream = os.fdopen(inner, "w")
        self._pieces = []
        self._reader = threading.Thread(target=self._read, args=[outer])
        self._reader.start()

    def _read(self, descriptor):
        with os.fdopen(descriptor, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
            while piece := terminal.read(4096):  # Linux tells the end by an error
                self._pieces.append(piece)

    @property
    def text(self):
        return b"".join(self._pieces).decode().replace("\r\n", "\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self._reader.join()


@pytest.fixture
def on_terminals(monkeypatch):
    """Run a command whose standard output and error are terminals of their own; give both as text."""

    def run(*arguments, **environment):
        with Terminal() as output, Terminal() as errors, monkeypatch.context() as patch:
            for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", **environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "path", [*sys.path])
            patch.setattr(sys, "stdout", output.stream)
            patch.setattr(sys, "stderr", errors.stream)
            main([str(argument) for argument in arguments])
        return [output.text, errors.text]

    return run


@pytest.fixture
def commands(files):
    """One of each kind of output: a tree, a line, differences, a table with a failure, an error."""
    library.save(declared(lr=0.5), files / "faster", durable=False)
    data = bytearray((files / "signed").read_bytes())
    data[-100] ^= 1
    (files / "damaged").write_bytes(data)
    KEY.to_file(files / "same-key")
    run = ["--model", "cli_material:small", "--model", "cli_material:broken", "--workers", 0]
    return {
        "inspect": ["inspect", files / "signed", "--key-file", files / "key"],
        "inspect a damaged file": ["inspect", files / "damaged"],
        "verify": ["verify", files / "signed", "--key-file", files / "key"],
        "diff": ["diff", files / "declared", files / "faster", "--trusted"],
        "run": ["run", files / "code", "--trusted", *run],
        "an error": ["inspect", files / "missing"],
    }


NAMES = ["inspect", "inspect a damaged file", "verify", "diff", "run", "an error"]


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_has_the_same_words_in_colour(commands, name, rebind, on_terminals):
    """And a pipe, a terminal under NO_COLOR and a dumb one have no code at all."""
    colourful = on_terminals(*commands[name])
    assert any(CODE.search(text) for text in colourful)
    plain = list(rebind(*commands[name])[1:])
    if name == "run":  # it tells seconds, and a terminal has a progress bar
        assert "\x1b[31mTrialFailedError" in colourful[0]
    else:
        assert [CODE.sub("", text) for text in colourful] == plain
    for less in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain += on_terminals(*commands[name], **less)
    assert not [text for text in plain if CODE.search(text)]


def test_a_pipe_has_colour_where_it_is_asked_for(commands, rebind, monkeypatch):
    """As on systems that show the output of a build in a browser."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert CODE.search(rebind(*commands["inspect"]).out)


def test_what_is_well_is_green_and_what_is_not_is_red(commands, on_terminals):
    """In words, too: the colour says nothing that the text does not."""
    tree, _ = on_terminals(*commands["inspect"])
    assert re.search(r"\x1b\[32mwhole\x1b\[0m\n", tree)
    assert "\x1b[32msigned with key 'ci', verified\x1b[0m" in tree
    tree, errors = on_terminals(*commands["inspect a damaged file"])
    assert re.search(r"\x1b\[31mchanged\x1b\[0m\n", tree)
    assert re.search(r"\x1b\[1;31mrebind:\x1b\[0m .*CorruptedError", errors)
    found, _ = on_terminals(*commands["diff"])
    assert "optimizers.kwargs.lr\x1b[0m: \x1b[31m0.1\x1b[0m -> \x1b[32m0.5\x1b[0m" in found


def test_errors_of_a_piped_command_are_coloured_on_the_terminal_that_shows_them(commands):
    """Each stream is looked at by itself: `rebind inspect FILE > out` has a colourful error."""
    with Terminal() as terminal:
        done = subprocess.run(
            [sys.executable, "-m", "rebind", *map(str, commands["inspect a damaged file"])],
            stdout=subprocess.PIPE,
            stderr=terminal.stream,
            env={**os.environ, "TERM": "xterm"},
            text=True,
            check=False,
        )
    errors = terminal.text
    assert done.returncode == 3
    assert "problems" in done.stdout
    assert not CODE.search(done.stdout)
    assert CODE.search(errors)


def test_the_progress_of_trials_is_a_bar_on_a_terminal_only(commands, rebind, on_terminals):
    """On the error stream; without colours under NO_COLOR, and without a word in a pipe."""
    _, bar = on_terminals(*commands["run"])
    assert "2/2" in bar
    assert "1 failed" in bar
    assert CODE.search(bar.partition("rebind:")[0])
    _, plain = on_terminals(*commands["run"], NO_COLOR="1")
    assert "2/2" in plain
    assert not CODE.search(plain)
    _, out, errors = rebind(*commands["run"])
    assert "2/2" not in out + errors
    assert errors.startswith("rebind: TrialFailedError")


def test_terminal_codes_in_a_file_are_not_obeyed(files, on_terminals):
    """A stranger's text has no colour but ours."""
    path = files / "\x1b[31mred"
    path.write_bytes(b"no file of ours")
    out, errors = on_terminals("inspect", path)
    assert "\x1b[31mred" not in out + errors
    assert r"\x1b[31mred" in CODE.sub("", errors)
