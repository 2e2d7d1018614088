"""Commands as functions: the exit code, and what went to standard output and standard error."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest
from cli_material import KEY, declared, with_code

from rebind.runtime.cli import main
from rebind.serialization import save


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def no_wish_for_colour(monkeypatch):
    """Whatever the person or system that runs the tests likes to see."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rebind(capsys, monkeypatch):
    """Run a command in this process."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def files(tmp_path):
    """A folder with evaluators, and the key of those that are signed."""
    save(declared(), tmp_path / "declared", durable=False)
    save(with_code(), tmp_path / "code", durable=False)
    save(with_code(), tmp_path / "signed", KEY, durable=False)
    KEY.to_file(tmp_path / "key")
    return tmp_path
