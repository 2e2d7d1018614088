"""A file that this Python or its libraries cannot open is told before anything in it is touched."""

from __future__ import annotations

import functools
import io
import pickle
import pickletools
import sys
import types
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from rebind.evaluator_schema.errors import (
    EnvironmentMismatchError,
    InvalidPayloadError,
    MissingModuleError,
    NotSerializableError,
)
from rebind.serialization import EnvironmentWarning, environment, imports, inspect, pack, pickling, unpack


@pytest.fixture
def written_with(monkeypatch):
    """Pack a value as if other versions had written it."""

    def write(value, implementation="cpython", **versions):
        here = environment.current_versions()
        with monkeypatch.context() as patch:
            patch.setattr("rebind.serialization.drafting.current_versions", lambda: here | versions)
            patch.setattr(sys.implementation, "name", implementation)
            return pack(value, kind="t")

    return write


def other_minor():
    return f"3.{sys.version_info.minor + 1}.2"


def test_code_from_another_minor_version_of_python_is_refused(written_with):
    """It would open and then crash the process; the message says which Python to use."""
    data = written_with(lambda: 1, python=other_minor())
    with pytest.raises(EnvironmentMismatchError, match=rf"Use Python 3\.{sys.version_info[1] + 1}"):
        unpack(data, trusted=True)
    assert inspect(data).versions["python"] == other_minor()


def test_code_from_another_implementation_of_python_is_refused(written_with):
    """Bytecode is its own."""
    with pytest.raises(EnvironmentMismatchError, match="pypy"):
        unpack(written_with([1], implementation="pypy"), trusted=True)


def test_another_patch_version_of_python_is_accepted(written_with):
    """It has the same bytecode."""
    data = written_with([1], python=f"3.{sys.version_info.minor}.99")
    assert unpack(data, trusted=True) == [1]


@pytest.mark.parametrize("library", ["torch", "cloudpickle", "pydantic", "rebind"])
def test_another_major_version_of_a_library_is_refused(written_with, library):
    """The payload calls private names of it."""
    with pytest.raises(EnvironmentMismatchError, match=rf"{library} 99\.0"):
        unpack(written_with([1], **{library: "99.0"}), trusted=True)


def test_a_later_library_warns_and_an_earlier_one_does_not(written_with):
    """Private names are added within a major version; they are not removed."""
    with pytest.warns(EnvironmentWarning, match=r"torch 2\.9999"):
        assert unpack(written_with([1], torch="2.9999.0"), trusted=True) == [1]
    assert unpack(written_with([1], torch="2.1.0"), trusted=True) == [1]


def test_a_library_that_is_not_here_and_not_needed_does_not_matter(written_with):
    """What is needed is told by its modules."""
    assert unpack(written_with([1], unheard_of="1.0"), trusted=True) == [1]


@pytest.mark.parametrize("name", ["", " ", "a/b", "../x", "x" * 5000, "\0"])
def test_what_is_no_name_of_a_library_does_not_matter(written_with, name):
    """A stranger's manifest may name anything."""
    assert unpack(written_with([1], **{name: "1.0"}), trusted=True) == [1]


@pytest.fixture
def library(monkeypatch):
    """A module that can be imported while the value is written."""
    module = types.ModuleType("a_library_of_mine")
    module.__version__ = "1.2"
    exec("class Thing:\n    pass\ndef helper():\n    return 5", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.__spec__ = None
    return module


def test_a_missing_module_is_told_before_anything_runs(library, monkeypatch):
    """With the field that needs it, and what to do."""
    ran = []
    monkeypatch.setattr("rebind.serialization.opening.unpickle_fields", ran.append)
    data = pack([library.Thing()], kind="t")
    assert "a_library_of_mine:Thing" in inspect(data).imports["t"]
    assert inspect(data).versions["a_library_of_mine"] == "1.2"
    monkeypatch.delitem(sys.modules, library.__name__)
    with pytest.raises(
        MissingModuleError, match=r"'a_library_of_mine' \(needed by t\).*register_pickle_by_value"
    ):
        unpack(data, trusted=True)
    assert not ran


def test_all_missing_names_are_told_at_once(library):
    """A class and a function that are gone."""
    data = pack([library.Thing(), library.helper], kind="t")
    del library.Thing, library.helper
    with pytest.raises(MissingModuleError, match=r"no 'Thing'.*no 'helper'"):
        unpack(data, trusted=True)


def test_a_module_that_fails_to_import_is_told(tmp_path, monkeypatch):
    """It is there, and raises something of its own."""
    (tmp_path / "a_module_that_breaks.py").write_text("class A: pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import a_module_that_breaks

    data = pack(a_module_that_breaks.A(), kind="t")
    monkeypatch.delitem(sys.modules, "a_module_that_breaks")
    (tmp_path / "a_module_that_breaks.py").write_text("1 / 0  # now longer\n", encoding="utf-8")
    with pytest.raises(MissingModuleError, match="ZeroDivisionError"):
        unpack(data, trusted=True)


def test_a_module_that_a_function_refers_to_is_recorded():
    """Also one that only its globals know."""
    code = "import fractions\ndef use():\n    return fractions.Fraction(1, 2)"
    names = {"__name__": "__main__"}
    exec(code, names)
    assert "fractions" in inspect(pack(names["use"], kind="t")).imports["t"]
    assert unpack(pack(names["use"], kind="t"), trusted=True)().denominator == 2


def test_the_recorded_names_are_those_that_unpickling_looks_up(monkeypatch):
    """No more and no fewer, over a value with many kinds of objects in it."""
    looked_up = []
    original = pickling._PayloadUnpickler.find_class

    def find_class(self, module, name):
        looked_up.append(f"{module}:{name}")
        return original(self, module, name)

    class Local(torch.nn.Module):
        factor = 2

        def forward(self, x):
            return torch.nn.functional.relu(x) * self.factor

    value = [Local(), torch.float16, torch.Size([1]), range(3), {1}, slice(1), KeyError("a"), len]
    data = pack(value, kind="t")
    monkeypatch.setattr(pickling._PayloadUnpickler, "find_class", find_class)
    unpack(data, trusted=True)
    recorded = inspect(data).imports["t"]
    assert {name for name in recorded if ":" in name} == set(looked_up)
    assert "torch" in recorded


def test_moved_modules_are_found_where_they_are_now(library, monkeypatch):
    """Old payloads name the old place."""
    data = pack(library.Thing(), kind="t")
    new = types.ModuleType("its_new_name")
    new.Thing = library.Thing
    monkeypatch.setitem(sys.modules, "its_new_name", new)
    monkeypatch.delitem(sys.modules, library.__name__)
    monkeypatch.setitem(pickling.MOVED_MODULES, library.__name__, "its_new_name")
    assert type(unpack(data, trusted=True)) is new.Thing


class Fragile:
    """Cannot be put together again."""

    def __reduce__(self):
        return int, ("not a number",)


def test_an_object_that_raises_while_it_is_opened_is_told_by_its_field():
    """Its own error is the cause."""
    with pytest.raises(InvalidPayloadError, match=r"'t'.*ValueError") as caught:
        unpack(pack(Fragile(), kind="t"), trusted=True)
    assert isinstance(caught.value.__cause__, ValueError)


class Recursive:
    def __reduce__(self):
        return Recursive, (Recursive(),)


def test_an_open_file_is_refused_when_it_is_written():
    """Its content does not travel in silence."""
    with Path(__file__).open(encoding="utf-8") as file, pytest.raises(NotSerializableError, match="file"):
        pack({"here": [file]}, kind="t")


def test_a_generator_is_refused_when_it_is_written():
    """The message says where it is."""
    with pytest.raises(NotSerializableError, match=r"t\['here'\]\[0\]"):
        pack({"here": [(each for each in [1])]}, kind="t")


def test_standard_output_travels_by_name():
    """It is the other process's own there."""
    assert unpack(pack(sys.stdout, kind="t"), trusted=True) is sys.stdout


def test_endless_recursion_is_refused():
    """With an error of ours."""
    with pytest.raises(NotSerializableError, match="recursion"):
        pack(Recursive(), kind="t")


def test_code_defined_here_keeps_working_elsewhere():
    """Closures, classes, defaults, and objects that they share."""
    shared = {"calls": 0}

    two = torch.tensor(2)

    def count(by=two):
        shared["calls"] += int(by)
        return shared

    class Counter:
        def __call__(self):
            return count()

    first, second = unpack(pack((count, Counter()), kind="t"), trusted=True)
    first()
    assert second()["calls"] == 4


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    "value",
    [
        [
            *range(-300, 300, 7),
            1 << 80,
            -1.5,
            None,
            True,
            "text" * 99,
            "\ud800",
            b"b" * 300,
            bytearray(9),
            {1: {2}},
        ],
        [f"{number}" * 3 for number in range(700)] * 2,
        functools.partial(print, *map(str, range(300))),
        [OrderedDict(a=1), OrderedDict(b=2), frozenset("ab"), Path("p"), pickle.PickleBuffer, "x" * 70_000],
        torch.nn.Linear(2, 2),
    ],
    ids=["kinds", "memo", "partial", "classes", "module"],
)
def test_names_are_found_as_by_reading_with_pickletools(value, protocol):
    """In streams with every size of argument; a name at the end shows that none was misread."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol)
    recorder, memo, start = imports.ImportRecorder(), [], 0
    for each in (
        [value, Fraction],
        (Fraction, value, Decimal),
    ):  # the second one looks up in the first one's memo
        pickler.dump(each)
        stream = file.getvalue()[start:]
        start = file.tell()
        found = recorder.record(stream)
        assert found == looked_up(stream, memo)
    assert found[-1].partition(":")[2] == "Decimal"
    assert len(recorder._memo) == len(memo)


def looked_up(stream, memo):
    """The names in a stream, with the opcodes as pickletools reads them."""
    found, strings = {}, [None, None]
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "MEMOIZE":
            memo.append(strings[-1])
        elif "UNICODE" in opcode.name:
            strings.append(argument)
        elif "GET" in opcode.name:
            strings.append(memo[argument])
        elif opcode.name == "STACK_GLOBAL":
            strings.append(f"{strings[-2]}:{strings[-1]}")
            found[strings[-1]] = None
        elif opcode.name not in {"FRAME", "PROTO"}:
            strings.append(None)
    return tuple(found)
