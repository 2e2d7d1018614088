"""What importing rebind does, and does not do."""

import subprocess
import sys

import pytest

import rebind
from rebind import evaluator_schema, runtime, serialization

HEAVY = ("pytorch_lightning", "lightning", "transformers", "sklearn", "dask", "ray", "pandas", "hypothesis")


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("use", ["", "; [getattr(rebind, name) for name in rebind.__all__]"])
def test_importing_rebind_leaves_heavy_libraries_alone(use):
    """Neither the import nor the use of every public name loads a library that is not needed yet."""
    found = run(f"import sys, rebind{use}; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert found.strip() == "[]"


def test_the_import_alone_loads_none_of_the_rooms():
    """`import rebind` loads one file; a room is loaded when a name of it is first used."""
    found = run("import sys, rebind; print([name for name in sys.modules if name.startswith('rebind.')])")
    assert found.strip() == "[]"


def test_everything_public_is_there_under_its_name():
    """Each public name leads to something, and each room's front door is sorted and true."""
    assert sorted(rebind.__all__) == list(rebind.__all__)
    for room in (evaluator_schema, serialization, runtime):
        assert list(room.__all__) == sorted(room.__all__), room
        for name in room.__all__:
            assert getattr(room, name) is not None
    for name in rebind.__all__:
        assert getattr(rebind, name) is not None
        assert name in dir(rebind)


def test_an_unknown_name_is_an_attribute_error():
    """So that `hasattr` and `from rebind import` behave."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = rebind.nonsense
