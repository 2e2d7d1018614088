"""Creating a `TorchEvaluator`: every mistake told at once and at its place; the value it is."""

# ruff: noqa: A006 - torch's own argument names

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping

import pytest
import spec_material as material
import torch
from pydantic import ValidationError
from torch.optim import SGD, Adam
from torch.optim import lr_scheduler as lrs

import rebind
from rebind import TorchEvaluator, diff, trace
from rebind.evaluator_schema import construction, values


def net():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))


def sgd(model, **options):
    return trace(SGD)(model.parameters(), lr=0.1, **options)


def make(**changes):
    model = changes.pop("model", None) or net()
    fields = {"training_func": material.train, "optimizers": sgd(model), "criterion": material.criterion}
    return TorchEvaluator(**{**fields, **changes})


def errors_of(create):
    with pytest.raises(ValidationError) as caught:
        create()
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


def spec(**kwargs):
    return {"target": "torch.optim:SGD", "args": [{"$parameters": ["weight"]}], "kwargs": kwargs}


def needs_lock():
    lock = threading.Lock()
    return lambda model: lock


MISTAKES = {
    "a module for an optimizer": ({"optimizers": net()}, "optimizers", "neither traced nor an optimizer"),
    "a class for an optimizer": ({"optimizers": SGD}, "optimizers", r"trace(SGD)(...)"),
    "an argument that is none": (
        {"optimizers": spec(lrr=0.1)},
        "optimizers.kwargs.lrr",
        "did you mean 'lr'?",
    ),
    "text for a number": ({"optimizers": spec(lr="abc")}, "optimizers.kwargs.lr", "must be float"),
    "no optimizer": ({"optimizers": []}, "optimizers", "at least one optimizer"),
    "nothing for an optimizer": ({"optimizers": None}, "optimizers", "at least one optimizer"),
    "the same optimizer twice": ({"optimizers": [opt := sgd(net()), opt]}, "optimizers.1", "passed twice"),
    "a foreign optimizer": (
        {"lr_schedulers": trace(lrs.StepLR)(trace(SGD)(net().parameters()), 3)},
        "lr_schedulers.args.0",
        "not among `optimizers`",
    ),
    "no training": (
        {"training_func": None},
        "training_func",
        "must be a function of (model, optimizers, criterion",
    ),
    "a training that takes too little": (
        {"training_func": lambda model: None},
        "training_func",
        "does not fit",
    ),
    "an evaluation without parameter": (
        {"evaluating_func": lambda: 1.0},
        "evaluating_func",
        "is called with (model)",
    ),
    "a number for an evaluation": (
        {"evaluating_func": 3},
        "evaluating_func",
        "must be a function of (model)",
    ),
    "a class for a criterion": ({"criterion": torch.nn.MSELoss}, "criterion", "pass an instance, MSELoss()"),
    "no criterion": ({"criterion": None}, "training_step", "none of them was given"),
    "criterion and training step": (
        {"training_step": lambda batch, model: 0},
        "training_step",
        "both of them",
    ),
    "what cannot be shipped": (
        {"evaluating_func": needs_lock()},
        "evaluating_func",
        "closes over 'lock' (_thread.lock)",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_at_its_place(name):
    """With what was found, what was expected and what to do."""
    changes, place, message = MISTAKES[name]
    said = errors_of(lambda: make(**changes))
    assert list(said) == [place]
    assert message in said[place]


def test_all_mistakes_are_told_at_once():
    """One for each field, and several in one."""
    said = errors_of(
        lambda: TorchEvaluator(
            None,
            [spec(lrr=0.1, lr="abc"), net()],
            torch.nn.MSELoss,
            [trace(lrs.StepLR)(sgd(net()), 3)],
            needs_lock(),
            lambda: 1,
        )
    )
    assert sorted(said) == [
        "criterion", "dummy_input", "evaluating_func", "lr_schedulers.0.args.0", "optimizers.0.kwargs.lrr",
        "optimizers.1", "training_func",
    ]  # fmt: skip


def test_an_untraced_object_of_ones_own_is_refused_with_the_way_out():
    """What cannot be told exactly is never guessed."""

    class Hiding(SGD):
        def __init__(self, params, scale):
            super().__init__(params, lr=0.1 * scale)

    model = net()
    said = errors_of(lambda: make(optimizers=Hiding(model.parameters(), 2), model=model))
    assert "build it with trace(Hiding)(...)" in said["optimizers"]


def test_unknown_fields_are_refused():
    """By the constructor, and in data."""
    with pytest.raises(TypeError, match="nothing"):
        make(nothing=1)
    assert "nothing" in errors_of(lambda: TorchEvaluator.model_validate({**dict(make()), "nothing": 1}))


def test_a_parameter_in_two_optimizers_is_legal_and_in_one_twice_is_not():
    """The second optimizer may drive the same parameters."""
    model = net()
    assert make(optimizers=[sgd(model), trace(Adam)(model.parameters())], model=model)
    twice = {"target": "torch.optim:SGD", "args": [{"$parameters": ["weight", "weight"]}]}
    assert "more than one place" in next(iter(errors_of(lambda: make(optimizers=twice)).values()))


def test_a_parameter_that_is_not_in_the_model_is_told():
    """The optimizer of another model was passed."""
    model = net()
    said = errors_of(lambda: TorchEvaluator(material.train, sgd(net()), material.criterion, model=model))
    assert all("not in the model given as model=" in message for message in said.values())


def test_checks_run_under_optimization_too():
    """`python -O` drops assert statements, of which none does a check."""
    code = """
        import torch
        from pydantic import ValidationError
        from rebind import TorchEvaluator, trace
        try:
            trace(torch.optim.SGD)(torch.nn.Linear(1, 1).parameters(), lrr=1)
        except TypeError as error:
            print("did you mean 'lr'" in str(error))
        try:
            TorchEvaluator(None, [], torch.nn.MSELoss, evaluating_func=lambda: 1)
        except ValidationError as error:
            print(sorted(line["loc"][0] for line in error.errors()))
    """
    done = subprocess.run(
        [sys.executable, "-O", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "True",
        "['criterion', 'evaluating_func', 'optimizers', 'training_func']",
    ]


def test_fields_can_be_passed_by_position_and_by_name():
    """In the order of the user guide."""
    model = net()
    optimizer = sgd(model)
    scheduler = trace(lrs.StepLR)(optimizer, 3)
    dummy = torch.ones(1, 2)
    by_position = TorchEvaluator(
        material.train, optimizer, material.criterion, scheduler, dummy, material.evaluate
    )
    by_name = TorchEvaluator(
        training_func=material.train,
        optimizers=optimizer,
        criterion=material.criterion,
        lr_schedulers=scheduler,
        dummy_input=dummy,
        evaluating_func=material.evaluate,
        model=model,
    )
    assert by_position == by_name
    assert TorchEvaluator(material.train, optimizer, training_step=lambda batch, model: 0.0)


def test_one_and_a_list_are_told_apart():
    """The form comes back in `training_func`, so it is part of the value."""
    model = net()
    assert isinstance(make(optimizers=[sgd(model)], model=model).optimizers, tuple)
    assert not isinstance(make(optimizers=sgd(model), model=model).optimizers, tuple)
    assert make(optimizers=[sgd(model)], model=model) != make(optimizers=sgd(model), model=model)


def test_evaluators_are_frozen():
    """A value does not change."""
    with pytest.raises(ValidationError, match="frozen"):
        make().criterion = None


def test_evaluators_are_equal_by_content():
    """Other lines, other models, other closures of the same code: the same value, with the same hash."""

    def closing(rate):
        return lambda input, target: input.sum() * rate

    first, second = (
        make(criterion=closing(0.5), dummy_input=torch.ones(3)),
        make(criterion=closing(0.5), dummy_input=torch.ones(3)),
    )
    assert first == second
    assert hash(first) == hash(second)
    assert len({first, second}) == 1
    assert first != make(criterion=closing(0.25), dummy_input=torch.ones(3))
    assert first != make(criterion=closing(0.5), dummy_input=torch.zeros(3))
    assert first != "an evaluator"


def test_differences_are_listed_with_their_paths():
    """Down to the argument, and into closures."""

    def closing(rate):
        return lambda input, target: input.sum() * rate

    model = net()
    first = make(optimizers=[sgd(model, momentum=0.5)], criterion=closing(1), model=model)
    second = make(optimizers=[sgd(model, momentum=0.9, nesterov=True)], criterion=closing(2), model=model)
    assert [(path, a) for path, a, _ in diff(first, second)] == [
        ("optimizers.0.kwargs.momentum", 0.5),
        ("optimizers.0.kwargs.nesterov", diff(first, second)[1][1]),
        ("criterion.rate", 1),
    ]
    assert diff(first, first) == []


def test_the_representation_is_a_tree_without_a_list_of_names():
    """Names are counted."""
    model = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(100)])
    optimizer = trace(SGD)(
        [{"params": list(model[:50].parameters()), "lr": 0.5}, {"params": list(model[50:].parameters())}],
        lr=0.1,
    )
    scheduler = trace(lrs.ChainedScheduler)([trace(lrs.StepLR)(optimizer, 2)])
    evaluator = make(
        optimizers=[optimizer], lr_schedulers=scheduler, dummy_input=torch.ones(8, 2), model=model
    )
    text = repr(evaluator)
    assert "group 0: 100 parameters, lr=0.5" in text
    assert "StepLR(#0, 2)" in text
    assert "0.weight" not in text
    assert "dummy_input: tensor float32[8, 2]" in text
    html = evaluator._repr_html_()
    assert "<script" not in repr(html)
    assert "group 0: 100 parameters" in html


def test_what_cannot_be_shown_is_shown_by_its_type():
    """Torch cannot print a tensor of bits; the evaluator around it can still be read."""
    bits = torch.zeros(1, dtype=torch.uint8).view(torch.bits8)
    text = repr(make(dummy_input={"mask": bits, "masks": bits}))
    assert "dummy_input: <dict>" in text
    assert "dummy_input: tensor bits8[1]" in repr(make(dummy_input=bits))


def test_the_json_schema_describes_what_is_written():
    """Every field is in it with its description, and nothing else is allowed."""
    schema = json.loads(json.dumps(TorchEvaluator.model_json_schema()))
    written = json.loads(make(evaluating_func=material.evaluate).model_dump_json())
    assert set(schema["properties"]) == set(TorchEvaluator.model_fields) == set(written)
    assert schema["required"] == ["training_func", "optimizers"]
    assert schema["additionalProperties"] is False
    construction, several = schema["properties"]["optimizers"]["anyOf"]
    assert set(written["optimizers"]) <= set(construction["properties"])
    assert several["minItems"] == 1


def test_an_evaluator_keeps_no_tensor_of_the_model():
    """Ten million parameters make a few kilobytes."""
    model = torch.nn.Linear(5000, 2000)
    evaluator = make(optimizers=sgd(model), model=model)
    assert len(rebind.dumps(evaluator)) < 10_000


class TwoGroups(torch.optim.SGD):
    """An optimizer that takes parameters in two places."""

    def __init__(self, params, extra, lr=0.1):
        super().__init__(
            [{"params": params}, {"params": [*(extra.values() if isinstance(extra, dict) else extra)]}], lr=lr
        )


@pytest.mark.parametrize("container", [list, tuple, deque, lambda items: OrderedDict(a=items[0])])
def test_names_are_learned_in_every_container(container):
    """Parameters whose names only the model knows, in whatever they were handed over."""
    model = torch.nn.Linear(2, 1)
    optimizer = trace(TwoGroups)([model.weight], container([model.bias]))
    evaluator = make(optimizers=optimizer)
    evaluator.resolve_names(model)
    assert evaluator.parameter_names() == ["weight", "bias"]


class Frozen(Mapping):
    """A mapping of a class of its own, of which nobody can make a copy."""

    def __init__(self, held):
        self.held = held

    def __getitem__(self, key):
        return self.held[key]

    def __iter__(self):
        return iter(self.held)

    def __len__(self):
        return len(self.held)


class Point(tuple):
    """A tuple of a class of its own, which may take other arguments."""

    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [Frozen({"a": [1]}), Point([1]), frozenset(), ()],
    ids=["mapping", "tuple of its own", "frozenset", "tuple"],
)
def test_what_cannot_be_copied_is_replaced_as_a_whole(value):
    """So that nobody takes it for copied; what can be copied is, empty or not."""
    replaced = []
    construction.replace_leaves({"x": value}, replaced.append)
    assert replaced == ([value] if isinstance(value, Frozen | Point) else [])
    assert values.is_container(value) == (not replaced)
