"""Orders and answers: what goes to a worker comes out of it, to the type, unless it was changed."""

from __future__ import annotations

import math
import types
from collections import OrderedDict
from fractions import Fraction
from functools import partial

import cloudpickle
import numpy as np
import pytest
import torch
import trial_material as material
from hypothesis import example, given
from hypothesis import strategies as st
from trial_material import Net

import rebind
from rebind.evaluator_schema.errors import (
    MissingModuleError,
    NotARebindFileError,
    SerializationError,
    UnpicklableResultError,
    WorkerEnvironmentError,
    WrongKeyError,
)
from rebind.runtime.trials.answers import Answer, Status, packed_result
from rebind.runtime.trials.messages import read_message, write_message
from rebind.runtime.trials.orders import Order
from rebind.serialization import SigningKey, pack
from rebind.serialization.environment import current_versions
from rebind.serialization.pickling import global_name

KEY = SigningKey("test", b"k" * 32)


def order(**objects):
    chosen = {"model": Net, "task": material.conditions, "rename": None} | objects
    return Order(
        evaluator="e" * 64,
        model_file=None,
        missing="raise",
        arguments={"max_steps": 3, "timeout": 0.1},
        seed=(1 << 63) - 1,
        state_dict=False,
        devices=[0],
        name="tri\N{WHITE SQUARE}l",
        slot=7,
        **chosen,
    )


def is_pickled(data):
    return len(read_message("trial", data, KEY)[1]) > 0


def test_an_order_for_what_has_a_name_holds_no_pickle():
    """Functions and classes that the worker finds by name go by name; None stands for itself."""
    for each in (order(), order(model=None), order(rename=material.conditions)):
        data = each.encode(KEY)
        assert not is_pickled(data)
        assert Order.decode(data, KEY) == each


class Falsy(torch.nn.Sequential):
    """An empty container is false, and no less a model."""


@pytest.mark.parametrize(
    "objects",
    [
        {"model": partial(Net, 3)},
        {"rename": {"a": "b"}},
        {"rename": {}},
        {"task": lambda binding: 1.0},
    ],
    ids=["partial", "mapping", "empty mapping", "lambda"],
)
def test_an_order_for_what_has_no_name_is_pickled(objects):
    """One object without a name is enough."""
    data = order(**objects).encode(KEY)
    assert is_pickled(data)
    back = Order.decode(bytearray(data), KEY)
    assert (back.name, back.seed, back.arguments) == (order().name, order().seed, order().arguments)
    assert back.rename == objects.get("rename")


def test_a_model_that_is_false_arrives():
    """It is asked whether it is there, and not whether it is true."""
    back = Order.decode(order(model=Falsy()).encode(KEY), KEY)
    assert isinstance(back.model, Falsy)


def test_a_module_that_was_registered_travels_by_its_content():
    """`cloudpickle.register_pickle_by_value` is heeded, for workers that lack the module."""
    assert global_name(Net) == f"{Net.__module__}:Net"
    cloudpickle.register_pickle_by_value(material)
    try:
        assert global_name(Net) is None
        assert is_pickled(order().encode(KEY))
    finally:
        cloudpickle.unregister_pickle_by_value(material)


def test_what_is_not_found_by_its_name_has_none():
    """A function that another one has replaced, a closure, a bound method, an object."""

    def conditions():
        """Says that it is another one."""

    conditions.__module__, conditions.__qualname__ = material.__name__, "conditions"
    for value in (conditions, lambda: 0, Net(2).forward, Net(2), math.pi, types.ModuleType("m")):
        assert global_name(value) is None


def test_a_name_that_is_not_here_is_told_as_what_a_pickle_needs(monkeypatch):
    """The module may be missing in a worker, or be another one there."""
    monkeypatch.setattr(material, "gone", types.FunctionType(Net.forward.__code__, {}, "gone"), raising=False)
    material.gone.__module__, material.gone.__qualname__ = material.__name__, "gone"
    data = order(task=material.gone).encode(KEY)
    assert not is_pickled(data)
    monkeypatch.delattr(material, "gone")
    with pytest.raises(MissingModuleError, match=r"has no 'gone' \(needed by trial\)"):
        Order.decode(data, KEY)


class Float(float):
    """A number of a class of its own."""


def assert_same(found, expected):
    """Equal, of the same types, all the way down."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_same(found[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    elif isinstance(expected, float) and math.isnan(expected):
        assert math.isnan(found)
    else:
        assert found == expected
        assert math.copysign(1, found) == math.copysign(1, expected) if isinstance(expected, float) else True


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=9)
values = scalars | st.lists(scalars, max_size=3) | st.tuples(scalars) | st.builds(Float, st.floats())
infos = st.dictionaries(st.text(max_size=4) | st.integers(), values, max_size=4)


@given(infos, values)
@example({"loss": np.float64(0.1)}, None)
@example({"a": float("nan"), "b": -0.0, "c": float("-inf")}, False)
@example({}, 1 << 70_000)
@example({"\ud800": "\ud800"}, "")
@example({"loss": True, "deep": OrderedDict(a=1)}, 0)
@example({"\ud83d\ude00": 1, "\U0001f600": 2}, "\ud83d\ude00")
@example({"long": "\u20ac" * 70_000}, None)
def test_a_result_comes_back_as_it_was(info, value):
    """Whether JSON carries it or a pickle: the same types, signs and order."""
    result = {"info": info, "value": value, "state_dict": None}
    sent = Answer(Status.DONE, 0.5, 7, score=0.1, **packed_result(result, KEY)).encode(KEY)
    answer = Answer.decode(bytearray(sent), KEY)
    assert_same(answer.result(KEY), result)
    assert (answer.status, answer.seconds, answer.process_id, answer.score) == (Status.DONE, 0.5, 7, 0.1)


def test_plain_results_are_not_pickled():
    """The check that the one before looks at both ways."""
    for info, value, plain in (
        ({"loss": 0.5, "name": "a", "n": 3, "ok": True, "none": None}, "text", True),
        ({"loss": np.float64(0.5)}, None, False),
        ({"losses": [0.5]}, None, False),
        ({1: 2}, None, False),
        ({}, 1 << 63, False),
        ({}, torch.ones(1), False),
    ):
        assert ("plain" in packed_result({"info": info, "value": value, "state_dict": None}, KEY)) == plain
    assert "body" in packed_result({"info": {}, "value": None, "state_dict": {}}, KEY)


MESSAGES = {
    "plain": Answer(Status.DONE, 0.5, 7, score=0.1, plain={"info": {"a": 1}, "value": 2}).encode(KEY),
    "packed": Answer(
        Status.DONE, 0.5, 7, body=pack({"info": {}, "value": [1]}, kind="result", key=KEY)
    ).encode(KEY),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_no_changed_byte_of_a_message_goes_unnoticed(kind):
    """Each byte in turn is changed, in two ways, and the message is cut at each."""
    data = MESSAGES[kind]
    Answer.decode(data, KEY).result(KEY)
    for at in range(len(data)):
        for changed in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at]):
            with pytest.raises(SerializationError):
                Answer.decode(changed, KEY).result(KEY)


def test_a_body_does_not_pass_under_another_message():
    """Both are signed with the same key, each for its own."""
    bodies = [pack({"value": number}, kind="result", key=KEY) for number in range(2)]
    first, second = (write_message("result", {"score": n}, body, KEY) for n, body in enumerate(bodies))
    with pytest.raises(WrongKeyError):
        read_message("result", first.removesuffix(bodies[0]) + bodies[1], KEY)
    assert read_message("result", second, KEY)[0] == {"score": 1}


def test_a_message_does_not_pass_for_one_of_another_kind():
    """An order is no answer, and no file."""
    with pytest.raises(NotARebindFileError, match="of the kind 'trial', and not 'result'"):
        Answer.decode(order().encode(KEY), KEY)
    data = order(model=Falsy()).encode(KEY)
    assert KEY.sign(data) != KEY.sign(data, purpose="message")


@pytest.mark.parametrize("length", [1, 2, 7, 40, 63])
def test_a_body_begins_where_tensors_may_lie(length):
    """Whatever is told before it: the last bit of a sum depends on the address."""
    data = write_message("result", {"name": "x" * length}, b"body", KEY)
    assert data.index(b"body") % 64 == 0


def memory_of(binding):
    """Where the model's memory begins, and whether NumPy takes it for aligned."""
    pointers = [parameter.data_ptr() % 64 for parameter in binding.model.parameters()]
    return {"pointers": pointers, "aligned": binding.model.array.flags.aligned}


class WithArray(Net):
    """A model that holds a large NumPy array too, in double precision."""

    def __init__(self):
        super().__init__(3)
        self.array = np.arange(10_000.0)
        self.double()


@pytest.mark.parametrize(
    "pool", [rebind.SerialPool, lambda: rebind.LocalPool(workers=1)], ids=["serial", "local"]
)
def test_tensors_of_models_and_of_results_lie_where_those_of_torch_do(pool):
    """In the worker as in this process; each trial's name has another length."""
    trials = [
        rebind.Trial(model=WithArray(), name="x" * length, task=memory_of) for length in (1, 2, 5, 16, 33)
    ]
    for result in rebind.run_trials(material.make_evaluator(), trials, pool(), state_dicts=True):
        assert result.value == {"pointers": [0] * len(result.value["pointers"]), "aligned": True}
        assert [value.data_ptr() % 64 for value in result.state_dict.values()] == [0] * len(result.state_dict)


def test_an_answer_of_another_key_is_an_error_of_its_trial_alone(monkeypatch):
    """The run goes on."""
    pool = rebind.SerialPool()
    handled = pool.next_outcome

    def tampered(wait=None):
        outcome = handled(wait)
        if outcome is not None and outcome.job_id == 0:
            changed = bytes(outcome.answer).replace(b'"done"', b'"donE"')
            outcome = type(outcome)(outcome.job_id, outcome.fate, changed)
        return outcome

    monkeypatch.setattr(pool, "next_outcome", tampered)
    trials = [rebind.Trial(model=Net, name=name, task=material.conditions) for name in "ab"]
    bad, good = rebind.run_trials(material.make_evaluator(), trials, pool)
    assert isinstance(bad.error, UnpicklableResultError)
    assert "the answer about trial 'a' was damaged on its way: WrongKeyError" in str(bad.error)
    assert good.error is None


def test_an_answer_about_another_trial_is_not_believed(monkeypatch):
    """A pool that mixes up its answers."""
    pool, answers = rebind.SerialPool(), []
    handled = pool.next_outcome

    def repeated(wait=None):
        outcome = handled(wait)
        answers.append(outcome.answer)
        return type(outcome)(outcome.job_id, outcome.fate, answers[0])

    monkeypatch.setattr(pool, "next_outcome", repeated)
    trials = [rebind.Trial(model=Net, name=name, task=material.conditions) for name in "ab"]
    good, bad = rebind.run_trials(material.make_evaluator(), trials, pool)
    assert good.error is None
    assert isinstance(bad.error, UnpicklableResultError)
    assert "the answer about trial 'b' is that about 'a'" in str(bad.error)


@pytest.mark.parametrize("versions", [{"python": "3.99.1"}, {"torch": "99.0"}], ids=["python", "torch"])
def test_a_worker_of_another_version_is_told_where_nothing_is_pickled(versions, monkeypatch):
    """Model and task go by name, and are the other version's there."""
    here = current_versions()
    monkeypatch.setattr("rebind.runtime.trials.execute.current_versions", lambda: here | versions)
    trials = [rebind.Trial(model=Net, task=material.conditions)]
    (result,) = rebind.run_trials(material.make_evaluator(), trials, rebind.SerialPool())
    assert isinstance(result.error, WorkerEnvironmentError)
    assert next(iter(versions.values())) in str(result.error)


def in_time(binding, timeout=None):
    """Give what it was given."""
    return {"timeout": timeout}


@pytest.mark.parametrize("number", [np.float32(30), np.int64(30), Fraction(30), torch.tensor(30.0)], ids=str)
def test_a_timeout_may_be_any_number(number):
    """It arrives as a float; so may a switch be NumPy's."""
    trials = [rebind.Trial(model=Net, task=in_time)]
    pool, switch = rebind.SerialPool(), np.True_
    (result,) = rebind.run_trials(material.make_evaluator(), trials, pool, timeout=number, state_dicts=switch)
    assert_same(result.value, {"timeout": 30.0})
    assert result.state_dict
