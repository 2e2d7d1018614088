"""Evaluators to bytes, files and back."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections import OrderedDict, deque
from pathlib import Path
from typing import NamedTuple

import importable_parts
import pytest
import torch

from rebind import TorchEvaluator, add_migration, trace
from rebind.evaluator_schema.declarative import migrations
from rebind.evaluator_schema.errors import (
    InvalidPayloadError,
    NotARebindFileError,
    NotSerializableError,
    RebindError,
    SerializationError,
    TruncatedError,
    UnresolvedParametersError,
    UntrustedPayloadError,
)
from rebind.evaluator_schema.evaluator import Evaluator
from rebind.serialization import (
    SigningKey,
    dumps,
    inspect,
    load,
    loads,
    open_evaluator,
    pack,
    rebuild,
    save,
    unpack,
)

KEY = SigningKey("test", b"k" * 32)
ALLOW = ["importable_parts"]


def make(training_func=importable_parts.train, dummy_input=None, sizes=(2, 1), factor=None):
    model = torch.nn.Linear(*sizes)
    optimizer = trace(torch.optim.SGD)(model.named_parameters(), lr=0.1, momentum=0.9)
    scheduler = (
        trace(torch.optim.lr_scheduler.LambdaLR)(optimizer, factor)
        if factor
        else trace(torch.optim.lr_scheduler.StepLR)(optimizer, step_size=2)
    )
    return TorchEvaluator(
        training_func,
        optimizer,
        torch.nn.functional.mse_loss,
        scheduler,
        dummy_input=dummy_input,
        evaluating_func=importable_parts.evaluate,
    )


def with_code(**arguments):
    scale = torch.ones(3)

    def train(model, optimizers, criterion):
        return scale * 2

    return make(train, **arguments)


@pytest.mark.parametrize("factor", [None, lambda epoch: 0.9**epoch], ids=["step", "lambda"])
def test_an_evaluator_with_code_comes_back_equal_in_its_parts(factor):
    """Recorded constructions are equal; functions do what they did."""
    evaluator = with_code(dummy_input=torch.arange(6.0).view(2, 3), factor=factor)
    back = loads(dumps(evaluator, KEY), KEY)
    assert type(back) is TorchEvaluator
    assert back.optimizers == evaluator.optimizers
    assert back.parameter_names() == evaluator.parameter_names()
    assert torch.equal(back.dummy_input, evaluator.dummy_input)
    assert back.training_func(None, None, None).tolist() == [2, 2, 2]
    assert back.code_fields() == evaluator.code_fields()


def test_pickled_code_opens_only_with_a_key_or_trust(tmp_path):
    """The error names the fields that carry it."""
    data = dumps(with_code())
    assert inspect(data).code_fields == ("training_func",)
    with pytest.raises(UntrustedPayloadError, match=r"in: training_func\. "):
        loads(data)
    assert loads(data, trusted=True).code_fields() == ["training_func"]
    save(with_code(), tmp_path / "f", KEY)
    with pytest.raises(UntrustedPayloadError, match="signed with key 'test'"):
        load(tmp_path / "f")
    assert load(tmp_path / "f", KEY)


def test_an_evaluator_of_import_paths_holds_no_pickle_and_opens_without_trust():
    """Its payload is JSON; tensors lie beside it as always."""
    evaluator = make(dummy_input={"x": [torch.arange(6.0).view(2, 3).t(), torch.ones(1).half()]})
    data = dumps(evaluator)
    manifest = inspect(data)
    assert (manifest.payload, manifest.code_fields, manifest.imports) == ("json", (), {})
    assert [(tensor.dtype, tensor.shape) for tensor in manifest.tensors] == [
        ("float32", (3, 2)),
        ("float16", (1,)),
    ]
    assert b"\x80\x05" not in data
    back = loads(data, allow=ALLOW)
    assert back == evaluator
    assert back.dummy_input["x"][0].stride() == (1, 3)


@pytest.mark.parametrize("key", [None, KEY], ids=["unsigned", "signed"])
def test_import_paths_that_are_not_allowed_are_told_with_every_cure(key):
    """The fields, the modules, and the three ways out, each of which is one."""
    data = dumps(make(factor=importable_parts.factor), key)
    with pytest.raises(UntrustedPayloadError) as caught:
        loads(data)
    told = str(caught.value)
    for place in ("training_func", "evaluating_func", "lr_schedulers"):
        assert place in told
    assert "importable_parts" in told
    for cure in ("allow=['importable_parts']", "key=", "trusted=True"):
        assert cure in told
    assert "validation error" not in told
    assert loads(data, allow=ALLOW) == loads(data, trusted=True) == make(factor=importable_parts.factor)
    if key:
        assert loads(data, key) == loads(data, trusted=True)


def test_a_class_that_is_not_allowed_is_told_as_such():
    """A kind of evaluator of the user's own is imported as well."""
    own = OwnEvaluator.from_fields(make().fields())
    data = dumps(own)
    assert inspect(data).payload == "json"
    Evaluator._kinds.pop("OwnEvaluator")
    try:
        with pytest.raises(UntrustedPayloadError, match=r"class to 'test_evaluator_files'"):
            loads(data, allow=ALLOW)
        assert type(loads(data, allow=[*ALLOW, __name__])) is OwnEvaluator
    finally:
        Evaluator._kinds["OwnEvaluator"] = OwnEvaluator


def test_an_import_path_that_leads_nowhere_is_not_a_matter_of_trust():
    """The module is allowed, and has no such name."""
    data = dumps(make())
    payload = data[-inspect(data).data_bytes :]
    assert payload.count(b"importable_parts:train") == 1
    from test_container_headers import digest, json, rebuilt

    length = len(data) - len(payload)
    header = json.loads(data[8:length])
    manifest = json.loads(header["__metadata__"]["rebind.manifest"])
    changed = payload.replace(b"importable_parts:train", b"importable_parts:nowhr")
    manifest["digests"]["payload"] = digest([changed])
    with pytest.raises(InvalidPayloadError, match="has no 'nowhr'"):
        loads(rebuilt(header, manifest, changed), allow=ALLOW)


def test_a_declarative_evaluator_from_another_python_opens(monkeypatch):
    """There is no code in it that would depend on the version."""
    with monkeypatch.context() as patch:
        patch.setattr(
            "rebind.serialization.drafting.current_versions",
            lambda: {"python": "3.99.0", "torch": "99.0", "rebind": "99.0"},
        )
        data = dumps(make())
    assert loads(data, allow=ALLOW) == make()


def test_hostile_declarations_give_typed_errors():
    """Every value of the JSON replaced by others, sealed correctly."""
    from test_container_headers import digest, json, rebuilt

    data = dumps(make(dummy_input=torch.arange(4.0)))
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    manifest = json.loads(header["__metadata__"]["rebind.manifest"])
    start, stop = (length + offset for offset in header["payload"]["data_offsets"])
    declared = json.loads(data[start:stop].rstrip(b"\0"))

    def places(value):
        if isinstance(value, (dict, list)):
            for key in value if isinstance(value, dict) else range(len(value)):
                yield value, key
                yield from places(value[key])

    tried = 0
    for holder, key in list(places(declared)):
        original = holder[key]
        for other in (None, 5, -1, "x", "os:system", "builtins:eval", "9" * 30, [], {}, [[{}]], 1e99):
            holder[key] = other
            payload = json.dumps(declared).encode()
            payload += b"\0" * (-len(payload) % 64)
            changed = json.loads(json.dumps(header))
            offset = start - length
            changed["payload"] |= {
                "shape": [len(payload)],
                "data_offsets": [offset, offset + len(payload)],
            }
            told = json.loads(json.dumps(manifest))
            told["data_bytes"] = offset + len(payload)
            told["digests"]["payload"] = digest([payload])
            try:
                loads(rebuilt(changed, told, data[length:start] + payload), allow=ALLOW)
            except RebindError:
                tried += 1
        holder[key] = original
    assert tried > 100


@pytest.mark.parametrize("kind", [torch.bits8, torch.uint3, torch.float4_e2m1fn_x2], ids=str)
def test_a_tensor_without_a_readable_element_comes_back_and_is_shown(kind):
    """A stranger's file may hold one of these dtypes, of which torch tells no number."""
    memory = torch.ones(1, dtype=torch.uint8)
    back = loads(
        dumps(make(dummy_input=torch.empty(0, dtype=kind).set_(memory.untyped_storage(), 0, (1,)))),
        trusted=True,
    )
    assert back.dummy_input.dtype is kind
    assert str(kind).removeprefix("torch.") in repr(back)


@pytest.mark.parametrize("kind", ["qint8", "quint8", "qint32", "quint4x2", "quint2x4"])
def test_quantized_numbers_without_a_quantizer_are_refused(kind):
    """Torch would make a tensor of them, and fail with an assertion of its own as soon as it is used."""
    memory = torch.ones(4, dtype=torch.uint8).untyped_storage()
    with pytest.raises(TypeError, match="without a quantizer"):
        rebuild.tensor((memory, 0), kind, (1,), (1,), False, False, False)


def test_the_evaluator_of_a_large_model_is_small():
    """No tensor of the model travels: 10 million parameters, less than 10 kB."""
    evaluator = with_code(sizes=(5000, 2000))
    assert len(dumps(evaluator, KEY)) < 10_000


def test_parameters_without_names_are_told_before_anything_is_written(tmp_path):
    """An evaluator that nobody else could bind is not written."""
    optimizer = trace(torch.optim.SGD)([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    evaluator = TorchEvaluator(importable_parts.train, optimizer, torch.nn.functional.mse_loss)
    with pytest.raises(UnresolvedParametersError):
        dumps(evaluator)
    with pytest.raises(UnresolvedParametersError):
        save(evaluator, tmp_path / "f")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("written", [with_code, make], ids=["pickled", "declared"])
def test_what_is_checked_once_comes_back_equal_each_time(written, tmp_path, monkeypatch):
    """Only the first rehydration checks; a migration that is added later has its say."""
    evaluator = written(dummy_input=torch.ones(3))
    save(evaluator, tmp_path / "f", KEY)
    with open_evaluator(tmp_path / "f", KEY) as opened:
        first, second = opened.rehydrate(), opened.rehydrate()
        assert first == second == evaluator
        assert first.model_fields_set == second.model_fields_set
        monkeypatch.setattr(migrations, "_migrations", list(migrations._migrations))
        add_migration("torch.optim:SGD", lambda spec: {**spec, "kwargs": {"lr": 7.0}})
        assert opened.rehydrate().optimizers.kwargs == {"lr": 7.0}


class Pair(NamedTuple):
    """At the top of a module, so that JSON carries it."""

    left: object
    right: object


def everything_that_json_carries():
    tensor = torch.arange(12.0).view(3, 4)
    return {
        "tensors": [tensor, tensor[1], tensor.T, torch.nn.Parameter(torch.ones(2)), tensor[:0]],
        "containers": ([1], {2}, frozenset({3}), deque([4, [5]], 9), OrderedDict(six=[7])),
        "pair": Pair([8], tensor),
        "values": [None, True, 1.5, 2j, "text", b"bytes", range(3), torch.float16, torch.device("cpu")],
        "named": [torch.nn.Linear, torch.nn.functional.relu, torch.Size([2]), importable_parts.Colour.RED],
    }


def changed(value):
    """Change everything in a value that can be changed, in place."""
    if isinstance(value, torch.Tensor):
        value.data.fill_(99)
    elif isinstance(value, dict):
        for each in [*value, *value.values()]:
            changed(each)
        value["changed"] = True
    elif isinstance(value, list | tuple | deque):
        for each in value:
            changed(each)
        if not isinstance(value, tuple):
            value.append("changed")
    elif isinstance(value, set):
        value.add("changed")
    elif isinstance(value, functools.partial):
        changed(value.keywords)
        changed(value.args)


@pytest.mark.parametrize(
    "dummy",
    [
        everything_that_json_carries,
        lambda: functools.partial(torch.nn.functional.cross_entropy, weight=torch.ones(2), other=[1]),
        lambda: {torch.ones(2): 1},
        lambda: {functools.partial(torch.nn.Linear, in_features=[1]): 1},
    ],
    ids=["everything", "partial", "tensor as a key", "partial as a key"],
)
def test_evaluators_without_code_share_nothing_that_can_be_changed(dummy, tmp_path):
    """However often one is made of one file: all that is in one was changed before the next is made."""
    written = make(dummy_input=dummy())
    written.optimizers.kwargs["lr"] = torch.tensor(0.1)
    save(written, tmp_path / "f", KEY)
    with open_evaluator(tmp_path / "f", KEY, allow=[*ALLOW, __name__]) as opened:
        assert opened.manifest.payload == "json"
        for _ in range(4):
            evaluator, fresh = opened.rehydrate(), load(tmp_path / "f", KEY)
            assert dumps(evaluator) == dumps(fresh)
            assert evaluator.model_fields_set == fresh.model_fields_set
            assert evaluator.code_fields() == []
            changed(evaluator.dummy_input)
            changed(evaluator.optimizers.kwargs)
            changed(evaluator.lr_schedulers.kwargs)
            assert dumps(evaluator) != dumps(fresh)


@pytest.mark.parametrize("written", [with_code, make], ids=["pickled", "declared"])
def test_each_rehydration_is_a_fresh_evaluator(written, tmp_path):
    """What is written to one shows in no other, and not in the file."""
    save(written(dummy_input=torch.zeros(3)), tmp_path / "f", KEY)
    with open_evaluator(tmp_path / "f", KEY) as opened:
        first, second = opened.rehydrate(), opened.rehydrate()
        first.dummy_input.fill_(7)
        assert second.dummy_input.tolist() == [0, 0, 0]
        assert opened.rehydrate().dummy_input.tolist() == [0, 0, 0]
        assert opened.digest == open_evaluator(tmp_path / "f", KEY).digest
        assert opened.manifest.kind == "TorchEvaluator"
    with pytest.raises(ValueError, match="closed"):
        opened.rehydrate()
    assert first.dummy_input.tolist() == [7, 7, 7]


def test_an_opened_evaluator_survives_the_replacement_of_its_file(tmp_path):
    """It keeps the file that it verified."""
    save(make(dummy_input=torch.zeros(3)), tmp_path / "f", KEY)
    with open_evaluator(tmp_path / "f", KEY, allow=ALLOW) as opened:
        save(make(dummy_input=torch.ones(3)), tmp_path / "f", KEY)
        assert opened.rehydrate().dummy_input.tolist() == [0, 0, 0]
    assert load(tmp_path / "f", allow=ALLOW).dummy_input.tolist() == [1, 1, 1]


def test_a_file_that_is_cut_in_place_is_noticed(tmp_path):
    """Before anything of it is touched."""
    save(make(), tmp_path / "f", KEY)
    with open_evaluator(tmp_path / "f", KEY, allow=ALLOW) as opened:
        os.truncate(tmp_path / "f", 100)
        with pytest.raises(TruncatedError, match="changed while it was open"):
            opened.rehydrate()


def test_a_hundred_rehydrations_of_a_large_file_take_well_under_a_second(tmp_path):
    """Neither digests nor tensors are read again."""
    save(with_code(dummy_input=torch.zeros(100 << 20, dtype=torch.uint8)), tmp_path / "f", KEY)
    with open_evaluator(tmp_path / "f", KEY) as opened:
        started = time.perf_counter()
        for _ in range(100):
            opened.rehydrate()
        assert time.perf_counter() - started < 1


def test_skipping_the_tensors_digests_leaves_every_other_check(tmp_path):
    """A change in a tensor goes unnoticed then; one in the payload or the header does not."""
    path = tmp_path / "f"
    save(with_code(dummy_input=torch.zeros(64, dtype=torch.uint8)), path, KEY)
    good = path.read_bytes()
    start = len(good) - inspect(path).data_bytes
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        in_tensor = start <= place < start + 128
        if in_tensor:
            back = load(path, KEY, verify_tensors=False)
            assert (back.dummy_input.sum() == 1) == (place >= start + 64)
        with pytest.raises(SerializationError):
            load(path, KEY, verify_tensors=in_tensor)


def test_a_value_is_no_evaluator_and_the_other_way_around():
    """Neither opens as the other."""
    with pytest.raises(NotARebindFileError, match="use unpack"):
        loads(pack([1], kind="list"), trusted=True)
    with pytest.raises(NotARebindFileError, match="TorchEvaluator"):
        unpack(dumps(with_code()), trusted=True)


def test_an_evaluator_that_is_not_valid_any_more_is_told():
    """Unpickling does not validate; opening does."""
    evaluator = with_code()
    fields = evaluator.fields() | {"training_func": lambda: None}
    broken = type(evaluator).model_construct(**fields)
    with pytest.raises(InvalidPayloadError, match="TorchEvaluator in it is not valid"):
        loads(dumps(broken), trusted=True)


def test_what_cannot_travel_is_located():
    """By field and variable, also where it hid from the checks at creation."""
    evaluator = with_code(dummy_input=torch.zeros(1))
    hidden = Path(__file__).open(encoding="utf-8")  # noqa: SIM115 - closed below
    broken = type(evaluator).model_construct(**(evaluator.fields() | {"criterion": lambda: hidden}))
    with hidden, pytest.raises(NotSerializableError, match=r"criterion closes over 'hidden'"):
        dumps(broken)


IN_ANOTHER_PROCESS = """
import sys
from rebind.serialization import load
evaluator = load(sys.argv[1], trusted=True)
print(type(evaluator).__name__, evaluator.training_func(None, None, None).tolist())
"""


def test_an_evaluator_opens_in_another_process(tmp_path):
    """With functions of this file, which that process cannot import, written by value."""
    import cloudpickle

    ours = [sys.modules[__name__], importable_parts]
    for module in ours:
        cloudpickle.register_pickle_by_value(module)
    try:
        save(with_code(), tmp_path / "f")
    finally:
        for module in ours:
            cloudpickle.unregister_pickle_by_value(module)
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, tmp_path / "f"],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(tmp_path),
    )
    assert done.stdout.split() == ["TorchEvaluator", "[2.0,", "2.0,", "2.0]"]
    assert not done.stderr


class OwnEvaluator(TorchEvaluator):
    """A kind of the user's."""


def test_a_kind_of_the_users_own_travels_with_its_code():
    """Its class is in the payload, and the kind in the manifest."""
    evaluator = with_code()
    own = OwnEvaluator.from_fields(evaluator.fields())
    data = dumps(own)
    assert inspect(data).kind == "OwnEvaluator"
    assert inspect(data).code_fields == ("class", "training_func")
    assert type(loads(data, trusted=True)) is OwnEvaluator
