"""What the page on the command line shows: its commands run, and its outputs are those."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from cli_material import declared, with_code

import rebind as library

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import DOCS, fences

BLOCKS = fences((DOCS / "command-line.md").read_text())
MODELS = """
import torch

def small():
    return torch.nn.Linear(2, 1)

pruned = small()
"""


def of(kind):
    return [block for found, block in BLOCKS if found == kind]


def test_the_pages_run_command_runs(rebind, tmp_path, monkeypatch):
    """As it stands, on two models of the user's own module; the second one has the name that it was given."""
    monkeypatch.chdir(tmp_path)
    Path("my_models.py").write_text(MODELS)
    assert rebind("keygen", "--key-file", "ci.key").code == 0
    library.save(with_code(), "digits.rebind", library.SigningKey.from_file("ci.key"), durable=False)
    (command,) = of("sh")
    program, *words = shlex.split(command.replace("\\\n", " "))
    assert program == "rebind"
    ran = rebind(*words, "--workers", "0", "--json")
    sys.modules.pop("my_models", None)
    assert (ran.code, ran.err) == (0, "")
    assert [trial["name"] for trial in json.loads(ran.out)] == ["my_models:small", "pruned"]


def test_the_pages_difference_is_what_diff_prints(rebind, files):
    library.save(declared(lr=0.5), files / "faster", durable=False)
    ran = rebind("diff", files / "declared", files / "faster", "--trusted")
    assert [ran.out] == of("text")


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_the_pages_json_has_the_form_of_what_is_printed(rebind, files, command):
    """The same names on every level, for a file that is whole and for one that is not."""
    (text,) = of("json")
    shown = json.loads(text)
    damaged = bytearray((files / "signed").read_bytes())
    damaged[-100] ^= 1
    (files / "damaged").write_bytes(damaged)
    whole, problem = (
        json.loads(rebind(command, files / name, "--key-file", files / "key", "--json").out)
        for name in ("signed", "damaged")
    )
    assert shown.keys() == whole.keys() == problem.keys()
    assert set(shown["manifest"]) - {"..."} <= set(whole["manifest"])
    assert shown["entries"][0].keys() == whole["entries"][0].keys()
    assert shown["entries"][0]["state"] == whole["entries"][0]["state"] == "whole"
    assert shown["problems"][0].keys() == problem["problems"][0].keys()
    assert shown["problems"][0]["error"] == problem["problems"][0]["error"]
    assert shown["signature"] == whole["signature"]
