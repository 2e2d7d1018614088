"""`trace`: the real thing is built, and nothing but a record beside it is left."""

# ruff: noqa: C417 - these iterators are the subject
# ruff: noqa: E501 - a table keeps one case on one line

# ruff: noqa: RUF043 - a plain text

from __future__ import annotations

import copy
import functools
import gc
import itertools
import pickle
import weakref

import cloudpickle
import pytest
import spec_material as material
import torch
from torch.optim import SGD
from torch.optim import lr_scheduler as lrs

from rebind import ArgumentError, TorchEvaluator, construction_of, is_traced, trace


def net():
    return torch.nn.Linear(2, 1)


@trace
class Widget:
    """A class under the decorator."""

    def __init__(self, size, colour="red"):
        self.size, self.colour = size, colour

    def method(self):
        return self.size


@trace
def make_sgd(params, rate=0.1):
    """Make one."""
    return SGD(params, lr=rate)


class Factory:
    def __call__(self, params, rate):
        return SGD(params, lr=rate)

    def build(self, params, rate):
        return SGD(params, lr=rate)

    @classmethod
    def of_class(cls, params, rate):
        return SGD(params, lr=rate)

    @staticmethod
    def of_nothing(params, rate):
        return SGD(params, lr=rate)


def test_the_result_is_the_real_thing():
    """Of the very class, with nothing written onto it."""
    model = net()
    plain, traced = SGD(model.parameters(), lr=0.1), trace(SGD)(model.parameters(), lr=0.1)
    assert type(traced) is SGD
    assert set(vars(traced)) == set(vars(plain))
    assert traced.state_dict() == plain.state_dict()
    plain_scheduler, scheduler = lrs.StepLR(plain, 3), trace(lrs.StepLR)(traced, 3)
    assert set(vars(scheduler)) == set(vars(plain_scheduler))
    assert scheduler.state_dict() == plain_scheduler.state_dict()
    assert is_traced(traced)
    assert not is_traced(plain)


@pytest.mark.parametrize(
    "target",
    [
        make_sgd, material.make, functools.partial(SGD, momentum=0.5), Factory(), Factory().build, Factory.of_class,
        Factory.of_nothing, lambda params, rate: SGD(params, lr=rate), functools.partial(Factory(), rate=0.3),
    ],
    ids=lambda target: type(target).__name__,
)  # fmt: skip
def test_every_callable_can_be_traced(target):
    """Functions, factories, partials, callable objects, methods of every kind."""
    keyword = "lr" if isinstance(target, functools.partial) and target.func is SGD else "rate"
    built = trace(target)(list(net().parameters()), **{keyword: 0.25})
    assert type(built) is SGD
    assert built.defaults["lr"] == 0.25
    record = construction_of(built)
    assert record.kwargs[keyword] == 0.25
    if not isinstance(target, functools.partial):
        assert record.target == getattr(target, "__wrapped__", target)


def test_a_traced_class_stays_a_class():
    """For isinstance, subclasses, pickle and cloudpickle."""
    widget = Widget(3)
    assert isinstance(Widget, type)
    assert isinstance(widget, Widget)
    assert construction_of(widget).args == (3,)
    assert pickle.loads(pickle.dumps(Widget)) is Widget
    assert cloudpickle.loads(cloudpickle.dumps(Widget)) is Widget
    again = pickle.loads(pickle.dumps(widget))
    assert type(again) is Widget
    assert again.size == 3
    assert copy.deepcopy(widget).size == 3

    class Larger(Widget):
        def __init__(self, size):
            super().__init__(size * 2)

    assert Larger(2).size == 4
    assert issubclass(Larger, Widget)


def test_a_traced_target_stands_where_a_class_stands():
    """`isinstance`, `issubclass`, a base, and attributes, through what `trace` gives for torch's own."""
    traced = trace(SGD)
    assert isinstance(SGD([torch.nn.Parameter(torch.ones(1))]), traced)
    assert issubclass(SGD, traced)
    assert traced.step is SGD.step
    assert traced.__name__ == "SGD"
    assert traced.__doc__ == SGD.__doc__

    class Mine(traced):
        pass

    assert Mine.__mro__[1] is SGD


def test_a_local_class_under_the_decorator_stays_a_class():
    """Told from a local class that is passed by where the call stands."""

    @trace
    class Local:
        def __init__(self, size):
            self.size = size

    class Passed:
        def __init__(self, size):
            self.size = size

    assert isinstance(Local, type)
    assert is_traced(Local(1))
    assert is_traced(trace(Passed)(1))
    assert not is_traced(Passed(1))
    assert trace(Local) is Local


def test_tracing_twice_gives_the_same():
    """`trace(C) is trace(C)`, also for what is traced already."""
    assert trace(SGD) is trace(SGD)
    assert trace(trace(SGD)) is trace(SGD)
    assert trace(Widget) is Widget
    assert trace(make_sgd) is make_sgd


def test_what_stands_in_for_torchs_own_class_is_let_go(monkeypatch):
    """Only torch's own lives as long as the process."""

    class Stand(SGD):
        pass

    Stand.__name__ = "SGD"
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim, "SGD", Stand)
        trace(torch.optim.SGD)(net().parameters(), lr=0.1)
    watched = weakref.ref(Stand)
    del Stand
    gc.collect()
    assert watched() is None


def test_a_traced_target_travels():
    """With pickle for what can be imported, and cloudpickle for the rest."""
    for dump in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dump(trace(SGD))) is trace(SGD)
        assert pickle.loads(dump(make_sgd)) is make_sgd
    local = cloudpickle.loads(cloudpickle.dumps(trace(lambda params: SGD(params, lr=0.5))))
    assert is_traced(local(list(net().parameters())))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: trace(SGD)(p, lrr=0.1), "SGD has no argument 'lrr', did you mean 'lr'?"),
        (lambda p: trace(SGD)(p, 0.1, lr=0.1), "SGD got 'lr' twice, by position and by name"),
        (lambda p: trace(SGD)(), "SGD needs the argument 'params'"),
        (lambda p: trace(lrs.StepLR)(SGD(p), stepsize=2), "did you mean 'step_size'?"),
        (lambda p: trace(make_sgd)(p, 1, 2, 3), "takes 2 positional arguments, 4 were given"),
        (lambda p: trace(SGD(p)), "write trace(SGD)(...), not trace(SGD(...))"),
        (lambda p: Widget(), "Widget needs the argument 'size'"),
    ],
)
def test_wrong_arguments_are_told_at_the_call(call, message):
    """A TypeError, which names the argument and a near one; nothing is built."""
    with pytest.raises(ArgumentError) as caught:
        call(net().parameters())
    assert message in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_all_wrong_arguments_are_told_at_once():
    """Not the first one only."""
    with pytest.raises(ArgumentError, match="'lrr'.*'momentun'"):
        trace(SGD)(net().parameters(), lrr=0.1, momentun=0.9)


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: iter(ps),
        lambda ps: (p for p in ps),
        lambda ps: filter(lambda p: p.requires_grad, ps),
        lambda ps: map(lambda p: p, ps),
        lambda ps: itertools.chain(ps[:1], ps[1:]),
        lambda ps: itertools.islice(ps, 2),
        lambda ps: reversed(ps),
        lambda ps: dict.fromkeys(ps, 1).keys(),
        lambda ps: [{"params": iter(ps)}],
        lambda ps: iter([{"params": filter(lambda p: p.requires_grad, ps)}]),
    ],
)
def test_iterators_are_read_once_and_the_call_gets_them_all(make):
    """Each of them can be built from again."""
    model = net()
    ps = list(model.parameters())
    optimizer = trace(SGD)(make(ps), lr=0.1)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    evaluator = TorchEvaluator(material.train, optimizer, material.criterion, model=model)
    assert sorted(evaluator.parameter_names()) == ["bias", "weight"]


def test_an_endless_iterator_is_left_alone():
    """Only what runs dry is read."""
    assert next(trace(lambda counter: counter)(itertools.count(5))) == 5


def test_arguments_are_recorded_as_they_were():
    """Whatever becomes of the caller's own objects afterwards."""
    model = net()
    rate, options, groups = torch.tensor(0.1), {"a": [1]}, [{"params": list(model.parameters()), "lr": 0.5}]
    optimizer = trace(material.Anything)(groups, options, lr=rate)
    rate.fill_(9.0)
    options["a"].append(2)
    groups[0]["lr"] = 7.0
    groups.append("nonsense")
    evaluator = TorchEvaluator(material.train, optimizer, material.criterion, model=model)
    assert evaluator.optimizers.args[1] == {"a": [1]}
    assert evaluator.optimizers.kwargs["lr"] == torch.tensor(0.1)
    assert set(evaluator.optimizers.args[0][0]) == {"params", "lr"}
    assert evaluator.optimizers.args[0][0]["lr"] == 0.5


def test_the_place_of_the_call_is_recorded():
    """File and line, for people."""
    record = construction_of(trace(SGD)(net().parameters()))
    assert (
        record.location.partition(":")[0].endswith("test_tracing.py") or "test_tracing.py:" in record.location
    )


def test_what_was_not_traced_says_so():
    """With the call to write instead."""
    with pytest.raises(LookupError, match=r"write trace\(SGD\)"):
        construction_of(SGD(net().parameters()))


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("created", [False, True])
def test_nothing_is_kept_alive(holds, created):
    """Optimizer, scheduler, model and a class made on the way go when their users go."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

    class Descent(SGD):
        pass

    model = Model()
    optimizer = trace(Descent)(model.parameters(), lr=0.1)
    scheduler = trace(lrs.LambdaLR)(optimizer, lambda epoch: 1.0)
    if created:
        TorchEvaluator(material.train, optimizer, material.criterion, scheduler)
    if holds:
        model.optimizer, model.scheduler = optimizer, scheduler
    watched = [weakref.ref(item) for item in (model, optimizer, scheduler, Model, Descent)]
    del model, optimizer, scheduler, Model, Descent
    for _ in range(3):
        gc.collect()
    assert [ref() for ref in watched] == [None] * 5
