"""Files of every format version ever released open for ever."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rebind.evaluator_schema.errors import EnvironmentMismatchError
from rebind.serialization import inspect, load, unpack_file, verify
from rebind.serialization.format import FORMAT, READABLE

GOLDEN = Path(__file__).parent.parent / "golden"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    monkeypatch.syspath_prepend(GOLDEN)
    import golden_parts

    return golden_parts


def golden(pattern):
    return sorted(GOLDEN.glob(pattern), key=lambda path: path.name)


def test_every_readable_format_has_golden_files():
    """Of each kind."""
    assert FORMAT in READABLE
    for version in READABLE:
        for kind in ("declared", "declared-signed", "code-*", "value-*"):
            assert golden(f"{version}-{kind}.rebind")


@pytest.mark.parametrize("path", golden("*.rebind"), ids=lambda path: path.name)
def test_a_golden_file_can_be_inspected(path):
    """By any Python."""
    assert str(inspect(path).format) == path.name.partition("-")[0]


@pytest.mark.parametrize("path", golden("*-declared*.rebind"), ids=lambda path: path.name)
def test_a_golden_declared_evaluator_is_what_it_was(path, parts):
    """On any Python, without trust."""
    back = load(path, allow=["golden_parts"])
    assert back == parts.declared()
    back.dummy_input["base"][1, 1] = 50
    assert back.dummy_input["view"][0, 1] == 50


@pytest.mark.parametrize("path", golden("*-signed.rebind"), ids=lambda path: path.name)
def test_a_golden_signature_is_valid(path, parts):
    """With the key of that name."""
    assert verify(path, parts.KEY).key_id == "golden"


@pytest.mark.parametrize("path", golden("*-code-*.rebind"), ids=lambda path: path.name)
def test_a_golden_evaluator_with_code_is_what_it_was(path, parts):
    """On the Python that wrote it; any other one says which that was."""
    if f"-{PYTHON}." not in path.name:
        with pytest.raises(EnvironmentMismatchError, match="Use Python"):
            load(path, parts.KEY)
        return
    back = load(path, parts.KEY)
    assert back.training_func(None, None, None) == 6
    assert back.parameter_names() == parts.with_code().parameter_names()
    assert back.summary() == parts.with_code().summary()


@pytest.mark.parametrize("path", golden("*-value-*.rebind"), ids=lambda path: path.name)
def test_a_golden_value_is_what_it_was(path, parts):
    """With views on the memory of their base."""
    if f"-{PYTHON}." not in path.name:
        pytest.skip("written by another Python")
    back, expected = unpack_file(path, key=parts.KEY), parts.value()
    assert torch.equal(back["weight"], expected["weight"])
    assert back["numbers"] == expected["numbers"]
    back["view"][0] = 9
    assert back["weight"][2] == 9
