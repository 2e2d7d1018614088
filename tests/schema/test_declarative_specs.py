"""Evaluators as plain data: written and read without pickle, and safe to read from anyone."""

# ruff: noqa: A006 - torch's own argument names
# ruff: noqa: E501 - a table keeps one case on one line

from __future__ import annotations

import collections
import functools
import json
import math

import pytest
import spec_material as material
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler as lrs

from rebind import ImportPathError, TorchEvaluator, add_migration, bind, dumps, loads, trace
from rebind.evaluator_schema.comparison import same
from rebind.evaluator_schema.declarative import migrations
from rebind.evaluator_schema.declarative.importing import import_path, resolve

ALLOW = {"allow": ["spec_material"]}


def net(width=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))


def make_evaluator(**changes):
    model = net()
    optimizer = trace(torch.optim.AdamW)(model.parameters(), lr=0.01, betas=(0.8, 0.9))
    scheduler = trace(lrs.SequentialLR)(
        optimizer,
        [trace(lrs.ConstantLR)(optimizer), trace(lrs.LambdaLR)(optimizer, material.halve)],
        milestones=[3],
    )
    fields = {
        "training_func": material.train,
        "optimizers": optimizer,
        "criterion": functools.partial(material.criterion, weight=2.0),
        "lr_schedulers": scheduler,
        "dummy_input": (torch.ones(2, 2), {"scale": math.inf}),
        "evaluating_func": material.evaluate,
    }
    return TorchEvaluator(**{**fields, **changes})


def evaluator_with(value):
    model = net()
    return TorchEvaluator(
        material.train, trace(material.Anything)(model.parameters(), value), material.criterion
    )


def test_json_brings_an_evaluator_back_whole():
    """What is read equals what was written, and JSON written again is the same text."""
    evaluator = make_evaluator()
    text = evaluator.model_dump_json()
    again = TorchEvaluator.model_validate_json(text, context=ALLOW)
    assert again == evaluator
    assert again.model_dump_json() == text
    assert again.optimizers.kwargs["betas"] == (0.8, 0.9)
    assert TorchEvaluator.model_validate_json(json.dumps(spec()), context=ALLOW)
    with bind(again, net(5)) as binding:
        assert type(binding.lr_schedulers[0]) is lrs.SequentialLR


def test_python_data_brings_an_evaluator_back_whole():
    """`model_dump` keeps what has no import path as it is."""
    evaluator = make_evaluator(criterion=lambda input, target: input.sum())
    assert TorchEvaluator.model_validate(evaluator.model_dump(), context=ALLOW) == evaluator


def test_an_evaluator_of_import_paths_opens_without_trust():
    """Its bytes hold no pickle."""
    evaluator = make_evaluator()
    assert evaluator.code_fields() == []
    assert loads(dumps(evaluator), allow=["spec_material"]) == evaluator


def test_a_closure_in_a_scheduler_makes_it_a_field_with_code():
    """What only pickle can carry is told beforehand, and carried by pickle."""
    model = net()
    optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    scheduler = trace(lrs.LambdaLR)(optimizer, lambda epoch: 0.5)
    evaluator = TorchEvaluator(material.train, optimizer, material.criterion, scheduler)
    assert evaluator.code_fields() == ["lr_schedulers"]
    assert loads(dumps(evaluator), trusted=True) == evaluator


DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32",
    "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_tensors_of_every_type_and_shape_come_back(dtype, shape):
    """Bit by bit, with type and shape."""
    tensor = (torch.rand(shape) * 4).to(getattr(torch, dtype))
    again = round_trip(tensor)
    assert type(again) is torch.Tensor
    assert again.dtype == tensor.dtype
    assert again.shape == tensor.shape
    assert (
        again.contiguous().reshape(-1).view(torch.uint8).tolist()
        == tensor.reshape(-1).view(torch.uint8).tolist()
    )


def test_tensors_come_back_with_their_kind():
    """Gradients, parameters, and views with strides of their own."""
    assert round_trip(torch.ones(2, requires_grad=True)).requires_grad
    assert isinstance(round_trip(torch.nn.Parameter(torch.ones(2), requires_grad=False)), torch.nn.Parameter)
    assert torch.equal(round_trip(torch.arange(6.0).reshape(2, 3).t()), torch.arange(6.0).reshape(2, 3).t())
    assert torch.equal(round_trip(torch.ones(1, dtype=torch.complex64).mul(1j).conj()), torch.tensor([-1j]))
    assert round_trip(torch.tensor([math.nan]))[0].isnan()


def round_trip(value):
    evaluator = make_evaluator(dummy_input=value)
    return TorchEvaluator.model_validate_json(evaluator.model_dump_json(), context=ALLOW).dummy_input


VALUES = [
    None, True, 0, -3, 2**70, 1.5, math.inf, -math.inf, 1e-320, "text", "$tuple", b"\x00\xff", 1 + 2j, complex(math.inf, 0),
    (), (1, (2.0, [3])), [], [(1,), None], {}, {"a": (1,)}, {1: 2, None: 3, (1, 2): 4}, {"$tuple": [1]},
    {"$nothing": 1, "b": 2}, {1, 2}, frozenset({(1, 2)}), range(1, 9, 2), torch.Size([2, 3]), torch.float16,
    torch.device("cpu"), torch.device("cuda", 1), material.Colour.GREEN, material.Power.A | material.Power.B,
    material.Pair(1, (2,)), material.Pair([material.Colour.RED], None), functools.partial(material.criterion, weight=(1,)),
    functools.partial(torch.nn.functional.cross_entropy, label_smoothing=0.1), torch.relu, torch.nn.functional.conv2d,
    math.sqrt, material.Outer.Inner, torch.nn.ReLU, material.halve, collections.deque([1, (2,)], maxlen=4),
    collections.OrderedDict([("b", 1), ("a", (2,))]),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_recorded_arguments_of_every_kind_come_back(value):
    """With their very type, also where JSON has none for it."""
    evaluator = evaluator_with([value]) if isinstance(value, dict) else evaluator_with(value)
    text = evaluator.model_dump_json()
    json.loads(text, parse_constant=pytest.fail)
    again = TorchEvaluator.model_validate_json(text, context={"allow": ["spec_material", "math"]})
    assert same(again.optimizers.args[1], evaluator.optimizers.args[1])
    assert type(again.optimizers.args[1]) is type(evaluator.optimizers.args[1])


def test_an_iterator_comes_back_as_an_iterator():
    """Each build gets a fresh one."""
    model = net()
    optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    scheduler = trace(lrs.MultiStepLR)(optimizer, milestones=iter([2, 4]))
    evaluator = TorchEvaluator(material.train, optimizer, material.criterion, scheduler)
    again = TorchEvaluator.model_validate_json(evaluator.model_dump_json(), context=ALLOW)
    for _ in range(2):
        with bind(again, net(4)) as binding:
            assert sorted(binding.lr_schedulers[0].milestones) == [2, 4]


class Local:
    """A class that an import path leads to, whose instances have none."""


@pytest.mark.parametrize(
    "value",
    [lambda: 1, Local(), torch.ones(2).to_sparse(), torch.ones(2, device="meta")],
    ids=["lambda", "local", "sparse", "meta"],
)
def test_what_json_cannot_carry_is_refused_when_it_is_written(value):
    """Silence would lose it."""
    with pytest.raises(ValueError, match="JSON cannot carry"):
        evaluator_with(value).model_dump_json()


# What may be imported


@pytest.mark.parametrize(
    "path",
    [
        "os:system", "logging:os.system", "torch:os.system", "torch:sys.modules.get", "spec_material:system", "builtins:eval",
        "torch.serialization:pickle.loads", "subprocess:run", "nowhere:at_all", "torch.optim:Adem", "torch.optim", "",
        ":", "torch:", ":SGD", "torch.optim:SGD.__init__.__globals__", "torch:__builtins__", "torch.optim:lr_scheduler",
        "torch.optim:SGD()", "../torch:SGD", "torch.optim :SGD",
    ],
)  # fmt: skip
def test_paths_that_lead_out_of_the_allow_list_are_refused(path):
    """By where they lead, not by how they are written."""
    with pytest.raises(ImportPathError):
        resolve(path, ["spec_material"])
    with pytest.raises(ValidationError):
        TorchEvaluator.model_validate({**spec(), "training_func": path}, context=ALLOW)


@pytest.mark.parametrize(
    "value",
    [
        torch.optim.SGD,
        lrs.StepLR,
        torch.nn.functional.mse_loss,
        torch.relu,
        torch.nn.Linear,
        torch.optim.swa_utils.SWALR,
    ],
)
def test_a_public_path_leads_back_to_the_very_object(value):
    """The path is the short public one, and re-exports are fine."""
    path = import_path(value)
    assert "._" not in path
    assert resolve(path) is value


def test_paths_of_nested_and_decorated_classes_lead_back():
    """A nested class has a dotted name; a class under `@trace` is itself."""
    assert resolve("spec_material:Outer.Inner", ["spec_material"]) is material.Outer.Inner
    assert resolve(import_path(material.Decorated), ["spec_material"]) is material.Decorated


@pytest.mark.parametrize(
    "target",
    [
        "torch.hub:load",
        "torch:load",
        "torch.jit:load",
        "torch.utils.data:DataLoader",
        "torch:compile",
        "torch:from_file",
    ],
)
def test_functions_of_torch_are_not_called_on_the_word_of_a_document(target):
    """The allow-list lets torch be imported, and torch can run files."""
    with pytest.raises(ValidationError, match="to have it called, allow its module"):
        TorchEvaluator.model_validate(
            {**spec(), "optimizers": {"target": target, "args": ["evil"]}}, context=ALLOW
        )
    partial = {"$partial": [{"$callable": target}, ["evil"], {}]}
    with pytest.raises(ValidationError, match="to have it called, allow its module"):
        TorchEvaluator.model_validate({**spec(), "criterion": partial}, context=ALLOW)


def test_a_factory_of_the_users_own_is_called_where_its_module_is_allowed():
    """Allowing a module by name allows its functions, too."""
    given = {
        **spec(),
        "optimizers": {"target": "spec_material:make", "args": [{"$parameters": ["0.weight"]}, 0.1]},
    }
    assert TorchEvaluator.model_validate(given, context=ALLOW).optimizers.target is material.make
    with pytest.raises(ValidationError, match="not on the allow-list"):
        TorchEvaluator.model_validate(given)


# What strangers may send


def spec():
    return {
        "training_func": "spec_material:train",
        "criterion": "torch.nn.functional:mse_loss",
        "optimizers": {
            "target": "torch.optim:SGD",
            "args": [{"$parameters": ["a", "b"]}],
            "kwargs": {"lr": 0.1},
        },
    }


HOSTILE = [
    {"$nope": 1}, {"$tuple": [1], "b": 2}, {"$tuple": 1}, {"$tuple": "ab"}, {"$float": "x"}, {"$float": []}, {"$complex": [1]},
    {"$complex": ["a", "b"]}, {"$bytes": 5}, {"$bytes": "***"}, {"$set": [[1]]}, {"$set": 5}, {"$range": ["a"]},
    {"$range": [1, 2, 0]}, {"$size": ["a"]}, {"$size": 5}, {"$size": [10**30]}, {"$dtype": "nope"}, {"$dtype": "float"[:0]},
    {"$device": "nope"}, {"$device": 5}, {"$partial": 5}, {"$partial": [1, 2, 3]}, {"$partial": ["x", [], {}]},
    {"$partial": [{"$callable": "torch:relu"}, 5, {}]}, {"$partial": [{"$callable": "torch:relu"}, [], [1]]}, {"$ref": "x"},
    {"$ref": -1}, {"$ref": None}, {"$ref": 1.5}, {"$parameter": 5}, {"$parameter": []}, {"$parameter": [1, 2]},
    {"$parameter": {}}, {"$parameters": 5}, {"$parameters": [1]}, {"$parameters": {"names": 5}}, {"$parameters": {}},
    {"$parameters": {"names": ["a"], "aliases": 5}}, {"$parameters": {"names": ["a"], "more": 5}}, {"$module": 5},
    {"$tensor": 5}, {"$tensor": "0"}, {"$tensor": {}}, {"$tensor": {"dtype": "float32", "shape": [3], "data": "AA=="}},
    {"$tensor": {"dtype": "float32", "shape": [10**12], "data": ""}}, {"$tensor": {"dtype": "qint8", "shape": [1], "data": "AA=="}},
    {"$tensor": {"dtype": "float32", "shape": [-1], "data": "AAAAAA=="}}, {"$enum": 5}, {"$enum": []},
    {"$tensor": {"dtype": "float32", "shape": "x", "data": "AAAAAA=="}}, {"$tensor": {"dtype": [], "shape": [], "data": ""}},
    {"$tensor": {"dtype": "int8", "shape": [1], "data": "AA==", "requires_grad": True}}, {"$enum": ["torch.optim:SGD", "x"]},
    {"$enum": ["torch.nn.attention:SDPBackend", "NOPE"]}, {"$enum": ["torch.nn.attention:SDPBackend"]}, {"$enum": [5, 5]},
    {"$enum": ["http:HTTPStatus", "OK"]}, {"$namedtuple": ["torch.optim:SGD", []]}, {"$namedtuple": 5}, {"$callable": 5},
    {"$namedtuple": ["torch.nn.utils.rnn:PackedSequence", [1]]}, {"$callable": "os:system"}, {"$dict": 5}, {"$dict": [[1]]},
    {"$callable": "torch.optim:SGD.__subclasses__"}, {"$dict": [[[1], 2]]}, {"$construction": 5}, {"$shared": 5},
    {"$construction": {"target": "torch.hub:load"}}, {"$construction": {"target": "torch.optim:SGD", "args": [[]], "order": -1}},
    {"$deque": 5}, {"$deque": [-1, []]}, {"$ordered": 5}, {"$shared": [[], 1]},
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=str)
@pytest.mark.parametrize("place", ["kwargs", "args", "dummy_input", "criterion", "options"])
def test_a_malformed_value_is_a_validation_error_wherever_it_stands(value, place):
    """Never another exception, and never a guess."""
    given = spec()
    if place == "kwargs":
        given["optimizers"]["kwargs"]["momentum"] = value
    elif place == "args":
        given["optimizers"]["args"].append([value])
    elif place == "options":
        given["optimizers"]["changes"] = [{"order": 1, "group": 0, "options": {"lr": value}}]
    else:
        given[place] = value
    with pytest.raises(ValidationError) as caught:
        TorchEvaluator.model_validate_json(json.dumps(given), context=ALLOW)
    assert str(caught.value)
    with pytest.raises(ValidationError):
        TorchEvaluator.model_validate(given, context=ALLOW)


def nested(depth, kind):
    value = 1
    for _ in range(depth):
        value = {"$tuple": [value]} if kind == "tag" else {"a": value} if kind == "dict" else [value]
    return value


@pytest.mark.parametrize("depth", [102, 300, 5_000, 100_000])
@pytest.mark.parametrize("kind", ["list", "dict", "tag"])
@pytest.mark.parametrize("place", ["dummy_input", "criterion", "optimizers", "kwargs"])
def test_deep_nesting_is_a_validation_error(depth, kind, place):
    """The stack of Python is not the limit."""
    given, value = spec(), nested(depth, kind)
    if place == "kwargs":
        given["optimizers"]["kwargs"]["momentum"] = value
    else:
        given[place] = value
    with pytest.raises(ValidationError):
        TorchEvaluator.model_validate(given, context=ALLOW)
    text = "[" * depth + "]" * depth
    with pytest.raises(ValidationError):
        TorchEvaluator.model_validate_json(
            json.dumps({**spec(), place: "@"}).replace('"@"', text), context=ALLOW
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("training_func", 5), ("training_func", None), ("training_func", "os:system"), ("optimizers", 5), ("optimizers", []),
        ("optimizers", {}), ("optimizers", [5]), ("optimizers", "x"), ("optimizers", None), ("lr_schedulers", 5),
        ("lr_schedulers", {"target": 5}), ("lr_schedulers", {"target": "torch.optim.lr_scheduler:StepLR", "args": [{"$ref": 9}, 3]}),
        ("optimizers", {"target": "torch.optim:SGD", "args": {}}), ("optimizers", {"target": "torch.optim:SGD", "args": [[]], "kwargs": []}),
        ("optimizers", {"target": "torch.optim:SGD", "args": [[]], "nope": 1}),
        ("optimizers", {"target": "torch.optim:SGD", "args": [[]], "changes": 5}),
        ("optimizers", {"target": "torch.optim:SGD", "args": [[]], "kwargs": {"lrr": 0.1}}),
        ("optimizers", {"target": "torch.optim:SGD", "args": [[]], "kwargs": {"lr": "abc"}}), ("nope", 1),
    ],
)  # fmt: skip
def test_a_malformed_field_is_a_validation_error(field, value):
    """The same for the fields themselves."""
    with pytest.raises(ValidationError):
        TorchEvaluator.model_validate_json(json.dumps({**spec(), field: value}), context=ALLOW)
    with pytest.raises(ValidationError):
        TorchEvaluator.model_validate({**spec(), field: value}, context=ALLOW)


# Specs of other versions


def test_verbose_of_older_torch_is_left_out():
    """torch 2.7 removed it from the schedulers, by position and by name."""
    for args, kwargs in (([{"$ref": 0}, 3], {"verbose": False}), ([{"$ref": 0}, 3, 0.5, -1, True], {})):
        scheduler = {"target": "torch.optim.lr_scheduler:StepLR", "args": args, "kwargs": kwargs, "order": 1}
        evaluator = TorchEvaluator.model_validate_json(
            json.dumps({**spec(), "lr_schedulers": scheduler}), context=ALLOW
        )
        assert len(evaluator.lr_schedulers.args) == min(len(args), 4)
        assert evaluator.lr_schedulers.kwargs == {}


def test_a_migration_of_the_users_own_renames_target_and_argument(monkeypatch):
    """For JSON, and for what was pickled."""
    monkeypatch.setattr(migrations, "_migrations", list(migrations._migrations))

    def rename(given):
        given["kwargs"]["lr"] = given["kwargs"].pop("rate")
        return {**given, "target": "torch.optim:SGD"}

    assert add_migration("gone_package:Descent", rename) is rename
    written = {
        **spec(),
        "optimizers": {**spec()["optimizers"], "target": "gone_package:Descent", "kwargs": {"rate": 0.3}},
    }
    evaluator = TorchEvaluator.model_validate_json(json.dumps(written), context=ALLOW)
    assert evaluator.optimizers.target is torch.optim.SGD
    assert evaluator.optimizers.kwargs == {"lr": 0.3}

    def double(given):
        return {**given, "kwargs": {**given["kwargs"], "lr": given["kwargs"]["lr"] * 2}}

    add_migration("torch.optim:SGD", double)
    assert TorchEvaluator.from_fields(evaluator.fields()).optimizers.kwargs == {"lr": 0.6}
