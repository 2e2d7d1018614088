"""Defects 1 to 9 of the system that rebind replaces: each with the behaviour that is right."""

# ruff: noqa: C417 - these iterators are the subject

from __future__ import annotations

import collections
import copy
import functools
import itertools
import pickle
import sys

import pytest
import spec_material as material
import torch
from torch.optim import SGD

from rebind import ArgumentError, TorchEvaluator, bind, construction_of, is_traced, trace


def net(width=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))


def evaluator_of(optimizer, model=None):
    return TorchEvaluator(material.train, optimizer, material.criterion, model=model)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_01_a_copy_of_a_traced_optimizer_works_shows_itself_and_still_makes_an_evaluator(again):
    """A copy has no record; its construction is told from its state."""
    model = net()
    optimizer = trace(SGD)(model.named_parameters(), lr=0.25)
    copied = again(optimizer)
    assert "lr: 0.25" in repr(copied)
    assert evaluator_of(copied).optimizers.kwargs == evaluator_of(optimizer).optimizers.kwargs


def test_02_tracing_makes_no_new_classes():
    """Neither at the call, nor for each unpickling; slots and a `__new__` of one's own are no obstacle."""
    assert trace(SGD) is trace(SGD)
    optimizer = trace(SGD)(net().parameters())
    assert type(optimizer) is SGD
    assert type(pickle.loads(pickle.dumps(optimizer))) is SGD
    assert pickle.loads(pickle.dumps(material.Decorated)) is material.Decorated

    class Slots:
        __slots__ = ("__weakref__", "size")

        def __init__(self, size):
            self.size = size

    class New:
        def __new__(cls, size):
            made = super().__new__(cls)
            made.size = size
            return made

    assert construction_of(trace(Slots)(3)).args == (3,)
    assert construction_of(trace(New)(3)).args == (3,)


def test_03_tracing_a_function_leaves_the_class_of_its_result_alone():
    """Other objects of that class are nobody's business."""
    before = dict(vars(SGD))
    trace(material.make)(net().parameters(), 0.1)
    assert dict(vars(SGD)) == before
    assert not is_traced(SGD(net().parameters()))


def test_04_no_constructor_is_replaced_on_any_platform(monkeypatch):
    """Tracing a class that is defined elsewhere touches nothing in it."""
    monkeypatch.setattr(sys, "platform", "darwin")
    before = SGD.__init__
    trace(SGD)(net().parameters())
    assert SGD.__init__ is before
    assert material.Outer.__init__ is object.__init__


@pytest.mark.parametrize("make", [
    lambda ps: filter(lambda p: p.requires_grad, ps), lambda ps: map(lambda p: p, ps), itertools.chain, iter,
])  # fmt: skip
def test_05_iterators_reach_both_the_optimizer_and_the_record(make):
    """Nothing is consumed on the way."""
    model, other = net(), net(5)
    optimizer = trace(SGD)(make(model.parameters()), lr=0.1)
    assert len(optimizer.param_groups[0]["params"]) == 4
    with bind(evaluator_of(optimizer), other) as binding:
        assert [id(p) for p in binding.optimizers[0].param_groups[0]["params"]] == [
            id(p) for p in other.parameters()
        ]


def test_06_an_argument_given_twice_is_an_error():
    """By position and by name."""
    with pytest.raises(ArgumentError, match="'lr' twice"):
        trace(SGD)(net().parameters(), 0.1, lr=0.2)


def test_07_later_changes_of_an_argument_do_not_reach_the_record():
    """However deep they are."""
    model, options = net(), {"deep": [{"er": [1]}]}
    optimizer = trace(material.Anything)(model.parameters(), options)
    options["deep"][0]["er"].append(2)
    with bind(evaluator_of(optimizer), net(4)) as binding:
        assert binding.optimizers[0].value == {"deep": [{"er": [1]}]}


def test_08_partials_callable_objects_and_named_tuples_are_arguments_and_targets():
    """All three."""
    Pair = collections.namedtuple("Pair", "first second")
    model = net()
    made = trace(functools.partial(material.Anything, lr=0.5))(
        model.parameters(), Pair(1, functools.partial(max, 1))
    )
    with bind(evaluator_of(made), net(4)) as binding:
        rebuilt = binding.optimizers[0]
    assert rebuilt.value.first == 1
    assert rebuilt.value.second(0) == 1
    assert rebuilt.defaults["lr"] == 0.5

    class Factory:
        def __call__(self, params):
            return SGD(params, lr=0.75)

    made = trace(Factory())(list(model.parameters()))
    with bind(evaluator_of(made, model), net(4)) as binding:
        assert binding.optimizers[0].defaults["lr"] == 0.75


def test_09_json_keeps_tuples_and_has_no_limit():
    """An argument of a megabyte comes back as what it was."""
    model = net()
    big = ("x" * 1_000_000, (1, 2))
    evaluator = evaluator_of(trace(material.Anything)(model.parameters(), big))
    again = TorchEvaluator.model_validate_json(
        evaluator.model_dump_json(), context={"allow": ["spec_material"]}
    )
    assert again.optimizers.args[1] == big
