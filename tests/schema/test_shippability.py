"""What is said about serialization when an evaluator is created, against what writing it then does."""

# ruff: noqa: A006 - torch's own argument names
# ruff: noqa: E501 - a table keeps one case on one line

from __future__ import annotations

import abc
import collections
import contextvars
import dataclasses
import enum
import functools
import io
import logging
import operator
import queue
import re
import socket
import sys
import tempfile
import threading
import types
import weakref

import numpy as np
import pytest
import spec_material as material
import torch
from pydantic import BaseModel, ValidationError

from rebind import TorchEvaluator, trace
from rebind.evaluator_schema.checking.shippability import explain
from rebind.serialization import pack

LOCK = threading.Lock()
TABLE = {"a": 1}
LOGGER = logging.getLogger("rebind.tests")
HANDLE = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open on purpose, closed by `_close`


@pytest.fixture(scope="module", autouse=True)
def _close():
    yield
    HANDLE.close()


def by_value(source, **names):
    """Define something in `__main__`, so that it travels by value."""
    space = {"__name__": "__main__", "torch": torch, "np": np, **names}
    exec(source, space)
    return space["made"]


class Refuses:
    def __reduce__(self):
        raise TypeError("not me")


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


class WithState:
    """Leaves its lock behind."""

    def __init__(self):
        self.lock = threading.Lock()

    def __getstate__(self):
        return {}


class Refers:
    def __init__(self, held):
        self.held = held

    def method(self, model):
        return self.held


@dataclasses.dataclass
class Data:
    held: object


class Validated(BaseModel):
    held: int = 1


class Net(torch.nn.Module):
    def __init__(self, held=None):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.held = held


def closure(held):
    return lambda model: held


def cyclic():
    items = []
    items.append(items)
    return items


def recursive():
    def inner(n):
        return inner(n - 1) if n else LOCK

    return inner


def deep():
    value = threading.Lock()
    for _ in range(5):
        value = {"inner": [value]}
    return closure(value)


def generator():
    yield 1


def hooked():
    net = Net()
    net.register_forward_hook(lambda *_: None)
    return net


def with_lock_in_property():
    return by_value(
        "class made:\n"
        "    @property\n"
        "    def a(self): return 1\n"
        "    @classmethod\n"
        "    def b(cls): return 2\n"
        "    @staticmethod\n"
        "    def c(): return 3\n"
    )


SUBJECTS = {
    "function": lambda: material.train,
    "lambda": lambda: lambda model: 1,
    "closure over data": lambda: closure({"a": [1, (2, torch.ones(2))]}),
    "closure over lock": lambda: closure(threading.Lock()),
    "closure over condition": lambda: closure(threading.Condition()),
    "closure over event": lambda: closure(threading.Event()),
    "closure over thread": lambda: closure(threading.Thread(target=print)),
    "closure over local": lambda: closure(threading.local()),
    "closure over queue": lambda: closure(queue.Queue()),
    "closure over generator": lambda: closure(generator()),
    "closure over open file": lambda: closure(HANDLE),
    "closure over binary file": lambda: closure(HANDLE.buffer),
    "closure over module": lambda: closure(torch),
    "closure over class": lambda: closure(Net),
    "closure over logger": lambda: closure(LOGGER),
    "closure over net": lambda: closure(Net()),
    "closure over net with lock": lambda: closure(Net(threading.Lock())),
    "closure over net with hook": lambda: closure(hooked()),
    "closure over parametrized net": lambda: closure(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2))),
    "closure over loader": lambda: closure(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(3)))),
    "closure over loader iterator": lambda: closure(
        iter(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(3))))
    ),
    "closure over torch generator": lambda: closure(torch.Generator()),
    "closure over numpy": lambda: closure(np.arange(3)),
    "closure over numpy objects": lambda: closure(np.array([1, "a", None], dtype=object)),
    "closure over numpy scalar": lambda: closure(np.float32(1)),
    "closure over numpy generator": lambda: closure(np.random.default_rng(0)),
    "closure over numpy function": lambda: closure(np.add),
    "closure over optimizer": lambda: closure(torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])),
    "closure over weak reference": lambda: closure(weakref.ref(LOGGER)),
    "closure over weak dictionary": lambda: closure(weakref.WeakKeyDictionary()),
    "closure over context variable": lambda: closure(contextvars.ContextVar("x")),
    "closure over enum": lambda: closure(material.Colour.RED),
    "closure over local enum": lambda: closure(enum.Enum("Local", "A B").A),
    "closure over data class": lambda: closure(Data([1])),
    "closure over data class with lock": lambda: closure(Data(threading.Lock())),
    "closure over pydantic": lambda: closure(Validated()),
    "closure over slots": lambda: closure(Slotted(1)),
    "closure over slots with lock": lambda: closure(Slotted(threading.Lock())),
    "closure over state without lock": lambda: closure(WithState()),
    "closure over refusing": lambda: closure(Refuses()),
    "closure over pattern": lambda: closure(re.compile("a+")),
    "closure over partial": lambda: closure(functools.partial(int, base=2)),
    "closure over partial with lock": lambda: closure(functools.partial(print, threading.Lock())),
    "closure over cached function": lambda: closure(functools.lru_cache(generator)),
    "closure over frame": lambda: closure(sys._getframe()),
    "closure over traceback": lambda: closure(traceback()),
    "closure over code": lambda: closure(generator.__code__),
    "closure over mapping proxy": lambda: closure(types.MappingProxyType({"a": 1})),
    "closure over property": lambda: closure(property(lambda self: 1)),
    "closure over iterator": lambda: closure(iter([1, 2])),
    "closure over zip": lambda: closure(zip([1], [2], strict=True)),
    "closure over map": lambda: closure(map(str, [1])),
    "closure over keys": lambda: closure({"a": 1}.keys()),
    "closure over values": lambda: closure({"a": 1}.values()),
    "closure over counter": lambda: closure(collections.Counter("aab")),
    "closure over default dict": lambda: closure(collections.defaultdict(list, a=[1])),
    "closure over default dict of lambda": lambda: closure(collections.defaultdict(lambda: 1)),
    "closure over deque": lambda: closure(collections.deque([1], maxlen=2)),
    "closure over chain map": lambda: closure(collections.ChainMap({"a": 1})),
    "closure over memory": lambda: closure(memoryview(b"ab")),
    "closure over bytes io": lambda: closure(io.BytesIO(b"ab")),
    "closure over string io": lambda: closure(io.StringIO("ab")),
    "closure over exception": lambda: closure(ValueError("a")),
    "closure over item getter": lambda: closure(operator.itemgetter(1)),
    "closure over namespace": lambda: closure(types.SimpleNamespace(a=threading.Lock())),
    "closure over super": lambda: closure(type("Local", (Refers,), {})(1)),
    "closure over cycle": lambda: closure(cyclic()),
    "closure over ellipsis": lambda: closure([..., NotImplemented, None]),
    "closure over slice": lambda: closure(slice(1, 2)),
    "closure over builtin": lambda: closure(len),
    "closure over bound builtin": lambda: closure([].append),
    "closure over bound method": lambda: closure(Refers(1).method),
    "closure over event loop stuff": lambda: closure(socket.socketpair),
    "closure over device": lambda: closure([torch.device("cpu"), torch.float16, torch.Size([1]), torch.strided]),
    "deep": deep,
    "recursive": recursive,
    "bound method with lock": lambda: Refers(threading.Lock()).method,
    "callable object": lambda: functools.partial(Refers.method, Refers(1)),
    "global lock by value": lambda: by_value("def made(model): return LOCK", LOCK=threading.Lock()),
    "unused global lock": lambda: by_value("def made(model): return 1", LOCK=threading.Lock()),
    "global in nested function": lambda: by_value("def made(model):\n def f(): return LOCK\n return f", LOCK=threading.Lock()),
    "attribute named as a global": lambda: by_value("def made(model): return model.LOCK", LOCK=threading.Lock()),
    "global class by value": lambda: by_value("class K:\n x = 1\ndef made(model): return K()"),
    "class with lock": lambda: closure(by_value("class made:\n x = LOCK", LOCK=threading.Lock())),
    "class whose method uses a lock": lambda: closure(by_value("class made:\n def f(self): return LOCK", LOCK=threading.Lock())),
    "class with descriptors": with_lock_in_property,
    "abstract class": lambda: closure(abc.ABCMeta("Local", (), {"f": abc.abstractmethod(lambda self: 1)})),
    "net by value": lambda: closure(
        by_value(
            "class K(torch.nn.Module):\n"
            "    def __init__(self):\n        super().__init__()\n        self.l = torch.nn.Linear(2, 2)\n"
            "made = K()"
        )
    ),
    "named tuple by value": lambda: closure(by_value("import collections\nP = collections.namedtuple('P', 'a b')\nmade = P(1, 2)")),
    "data class by value": lambda: closure(
        by_value("import dataclasses\n@dataclasses.dataclass\nclass K:\n    a: int = 1\nmade = K()")
    ),
    "enum by value": lambda: closure(by_value("import enum\nclass K(enum.Enum):\n    A = 1\nmade = K.A")),
    "default lock": lambda: by_value("def made(model, lock=LOCK): return 1", LOCK=threading.Lock()),
    "keyword default lock": lambda: by_value("def made(model, *, lock=LOCK): return 1", LOCK=threading.Lock()),
    "function attribute lock": lambda: with_attribute(threading.Lock()),
    "wrapped function": lambda: functools.wraps(material.train)(lambda *_: 1),
    "traced": lambda: closure(trace(torch.optim.SGD)),
    "compiled regex flags": lambda: closure(re.IGNORECASE),
    "standard output": lambda: closure(sys.__stdout__),
    "socket": lambda: closure(None),
}  # fmt: skip


def traceback():
    try:
        raise ValueError
    except ValueError as error:
        return error.__traceback__


def with_attribute(held):
    def function(model): ...

    function.held = held
    return function


def is_really_shippable(value):
    try:
        pack(value, kind="probe")
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_verdict_agrees_with_what_writing_does(name):
    """A problem is told if and only if serialization would fail."""
    value = SUBJECTS[name]()
    said = explain(value, "training_func")
    assert bool(said) == (not is_really_shippable(value)), said


def test_sockets_are_refused():
    """They belong to one process."""
    first, second = socket.socketpair()
    with first, second:
        assert explain(closure(first), "training_func")
        assert not is_really_shippable(closure(first))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: closure(LOCK),
            "training_func closes over 'held' (_thread.lock), which cannot be serialized",
        ),
        (
            lambda: closure({"a": [LOCK]}),
            "training_func closes over 'held': held['a'][0] is of type _thread.lock",
        ),
        (lambda: closure(Data(LOCK)), "training_func closes over 'held': held.held is of type _thread.lock"),
        (SUBJECTS["global lock by value"], "training_func uses the global 'LOCK' (_thread.lock)"),
        (SUBJECTS["default lock"], "a default of training_func is of type _thread.lock"),
        (lambda: closure(HANDLE), "training_func closes over 'held'"),
        (lambda: Refers(LOCK).method, "training_func.__self__.held is of type _thread.lock"),
    ],
)
def test_the_culprit_is_named_with_the_way_to_it(make, sentence):
    """Down to the captured variable."""
    (said,) = explain(make(), "training_func")
    assert sentence in said


def test_what_cannot_be_shipped_is_told_at_creation():
    """In every field, all at once."""
    model = torch.nn.Linear(2, 1)
    lock = threading.Lock()
    optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    with pytest.raises(ValidationError) as caught:
        TorchEvaluator(
            lambda model, optimizers, criterion: lock,
            optimizer,
            lambda input, target: lock,
            trace(torch.optim.lr_scheduler.LambdaLR)(optimizer, lambda epoch: 1.0 if lock else 0.0),
            dummy_input=[lock],
            evaluating_func=lambda model: lock,
        )
    places = [".".join(map(str, error["loc"])) for error in caught.value.errors()]
    assert places == ["training_func", "criterion", "lr_schedulers.args.1", "dummy_input", "evaluating_func"]
    assert all("lock" in error["msg"] for error in caught.value.errors())


def test_a_large_capture_costs_bounded_time():
    """Only the first objects are looked at when an evaluator is created."""
    assert explain(closure([object() for _ in range(200_000)]), "training_func", limit=100) == []
