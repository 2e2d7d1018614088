"""Every error of opening, provoked: it says where the mistake is, and what to do about it."""

from __future__ import annotations

import json
import os
import sys
import types

import importable_parts
import pytest
import test_container_headers as headers
import torch

from rebind import TorchEvaluator, trace
from rebind.evaluator_schema import errors
from rebind.serialization import (
    SigningKey,
    dumps,
    environment,
    inspect,
    loads,
    pack,
    pack_file,
    unpack,
    verify,
)
from rebind.serialization.format import FORMAT, MAX_HEADER_BYTES
from rebind.serialization.signing import MIN_SECRET_BYTES

OURS, THEIRS = SigningKey("ours", b"o" * 32), SigningKey("theirs", b"t" * 32)
AGAIN = "Get the file again from where it was made"
GOOD = pack({"x": torch.arange(16)}, kind="test")


def changed(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def with_manifest(**fields):
    header, manifest, data = headers.parts()
    return headers.rebuilt(header, manifest | fields, data)


def with_entry(**fields):
    header, manifest, data = headers.parts()
    header[headers.TENSOR] |= fields
    return headers.rebuilt(header, manifest, data)


def declared():
    optimizer = trace(torch.optim.SGD)(torch.nn.Linear(2, 1).named_parameters(), lr=0.1)
    return TorchEvaluator(importable_parts.train, optimizer, torch.nn.functional.mse_loss)


def written_by(monkeypatch, **versions):
    here = environment.current_versions()
    with monkeypatch.context() as patch:
        patch.setattr("rebind.serialization.drafting.current_versions", lambda: here | versions)
        return pack([1], kind="test")


def missing_module(monkeypatch):
    module = types.ModuleType("a_module_that_left")
    exec("class Thing:\n    pass", vars(module))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        data = pack(module.Thing(), kind="test")
    unpack(data, trusted=True)


def unknown_kind():
    evaluator = declared()
    data = dumps(evaluator)
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    manifest = json.loads(header["__metadata__"]["rebind.manifest"]) | {"kind": "Unheard"}
    loads(headers.rebuilt(header, manifest, data[length:]))


class Broken:
    def __reduce__(self):
        return int, ("not a number",)


def not_valid():
    broken = TorchEvaluator.model_construct(**(declared().fields() | {"training_func": lambda: None}))
    loads(dumps(broken), trusted=True)


def missing_device():
    unpack(GOOD, trusted=True, map_location="cuda:99")


def no_file(tmp_path):
    reader, writer = os.pipe()
    try:
        inspect(f"/proc/self/fd/{reader}")
    finally:
        os.close(reader)
        os.close(writer)


def no_variable(monkeypatch):
    monkeypatch.delenv("A_KEY", raising=False)
    SigningKey.from_env("A_KEY")


def newer():
    inspect(with_manifest(format=FORMAT + 1, versions={"rebind": "9.1"}))


# The name of the case: the error, how to provoke it, and what its message holds: place first, cure last.
# What provokes it may ask for fixtures by the names of its arguments.
CASES = {
    "cut header": ("Truncated", lambda: inspect(GOOD[:100]), ["there are 100", AGAIN]),
    "cut data": ("Truncated", lambda: inspect(GOOD[:-1]), [f"{len(GOOD) - 1:,} of {len(GOOD):,}", AGAIN]),
    "appended": ("Truncated", lambda: inspect(GOOD + b"x"), [f"ends after {len(GOOD):,}", AGAIN]),
    "changed header": ("Corrupted", lambda: inspect(changed(GOOD, 200)), ["The header", AGAIN]),
    "changed entry": ("Corrupted", lambda: inspect(changed(GOOD, -1 % len(GOOD))), ["'payload'", AGAIN]),
    "moved entry": (
        "Corrupted",
        lambda: inspect(with_entry(data_offsets=[64, 192])),
        ["'tensor.test.0' lies at 64..192", AGAIN],
    ),
    "wrong type": ("Corrupted", lambda: inspect(with_entry(dtype="F12")), ["'tensor.test.0'", AGAIN]),
    "other spelling": ("Corrupted", lambda: inspect(with_entry(more=1)), ["The header", AGAIN]),
    "no json": (
        "Corrupted",
        lambda: inspect(headers.sealed(headers.SIGNED_OPENING + b'"' + b" " * 100)),
        ["The header is not the JSON", AGAIN],
    ),
    "no manifest": (
        "Corrupted",
        lambda: inspect(headers.sealed(headers.SIGNED_OPENING + b'"}}' + b" " * 100)),
        ["The header has no manifest", AGAIN],
    ),
    "deep manifest": (
        "Corrupted",
        lambda: inspect(with_manifest(summary=headers.nested(400))),
        ["The manifest nests", AGAIN],
    ),
    "broken rule": (
        "Corrupted",
        lambda: inspect(with_manifest(digests={})),
        ["every entry has a digest", AGAIN],
    ),
    "unknown field": (
        "Corrupted",
        lambda: inspect(with_manifest(unheard=1)),
        ["The manifest", AGAIN, "unheard"],
    ),
    "layout of nowhere": (
        "Corrupted",
        lambda: unpack(headers.with_layout(b'{"buffers":[0]}'), trusted=True),
        ["The layout", AGAIN],
    ),
    "layout without tensors": (
        "Corrupted",
        lambda: unpack(headers.with_layout(b"{}"), trusted=True),
        ["The layout has places for 0 tensors", "tells of 1", AGAIN],
    ),
    "layout of another kind": (
        "Corrupted",
        lambda: unpack(headers.with_layout(b'{"segments":[["payload",0,4]]}'), trusted=True),
        ["The layout", AGAIN],
    ),
    "some other file": (
        "NotARebindFile",
        lambda: inspect(b"PK\x03\x04" + bytes(96)),
        ["These 100 bytes", "torch.load"],
    ),
    "bytes of anything": ("NotARebindFile", lambda: inspect(bytes(99)), ["99 bytes", "Name one that rebind"]),
    "no format": ("NotARebindFile", lambda: inspect(with_manifest(format=0)), ["The manifest", AGAIN]),
    "a pipe": ("NotARebindFile", no_file, ["not a regular file", "open those"]),
    "another kind": (
        "NotARebindFile",
        lambda: unpack(GOOD, kind="model", trusted=True),
        ["the value 'test'", "'model'", "kind='test'"],
    ),
    "a value": ("NotARebindFile", lambda: loads(GOOD, trusted=True), ["value 'test'", "use unpack"]),
    "an evaluator": ("NotARebindFile", lambda: unpack(dumps(declared())), ["'TorchEvaluator'", "use loads"]),
    "newer": (
        "NewerFormat",
        newer,
        [f"format {FORMAT + 1}, written by rebind 9.1", f"up to format {FORMAT}", "Update rebind"],
    ),
    "large file": ("TooLarge", lambda: inspect(GOOD, max_bytes=99), [f"{len(GOOD):,}", "99", "max_bytes="]),
    "large header": (
        "TooLarge",
        lambda: inspect((1 << 40).to_bytes(8, "little") + headers.OPENING + bytes(500)),
        ["The header claims", f"{MAX_HEADER_BYTES:,}", AGAIN],
    ),
    "unsigned": (
        "Unsigned",
        lambda: unpack(GOOD, key=OURS, trusted=True),
        ["not signed", "without a key, with trusted=True"],
    ),
    "unsigned, verified": ("Unsigned", lambda: verify(GOOD, OURS), ["not signed", "trusted=True"]),
    "unknown key": (
        "UnknownKey",
        lambda: unpack(pack(1, kind="t", key=THEIRS), key=OURS),
        ["'theirs'", "'ours'", "key=[...]"],
    ),
    "wrong key": (
        "WrongKey",
        lambda: unpack(pack(1, kind="t", key=THEIRS), key=SigningKey("theirs", b"x" * 32)),
        ["'theirs'", "Pass the key of whoever wrote them"],
    ),
    "short key": (
        "InvalidKey",
        lambda: unpack(GOOD, key=b"short"),
        [f"{MIN_SECRET_BYTES} bytes", "has 5", "SigningKey.generate"],
    ),
    "no key": ("InvalidKey", lambda: unpack(GOOD, key=5), ["not int", "SigningKey.generate"]),
    "no keys": ("InvalidKey", lambda: unpack(GOOD, key=[]), ["is empty", "key=None"]),
    "a text as secret": ("InvalidKey", lambda: SigningKey("a", "x" * 32), ["not str", "SigningKey.generate"]),
    "a strange id": ("InvalidKey", lambda: SigningKey("a b", b"x" * 32), ["'a b'", "Choose another"]),
    "no variable": ("InvalidKey", no_variable, ["A_KEY", "Set it to"]),
    "pickled code": ("UntrustedPayload", lambda: unpack(GOOD), ["in: test", "key=", "trusted=True"]),
    "a strange module": (
        "UntrustedPayload",
        lambda: loads(dumps(declared())),
        ["training_func to 'importable_parts'", "allow=['importable_parts']", "key=", "trusted=True"],
    ),
    "another python": (
        "EnvironmentMismatch",
        lambda monkeypatch: unpack(written_by(monkeypatch, python="3.99.0"), trusted=True),
        ["in test", "Use Python 3.99, or write it again"],
    ),
    "another torch": (
        "EnvironmentMismatch",
        lambda monkeypatch: unpack(written_by(monkeypatch, torch="99.0"), trusted=True),
        ["in test", "Install torch 99.0, or write it again"],
    ),
    "missing module": (
        "MissingModule",
        missing_module,
        ["'a_module_that_left'", "needed by test", "Install it", "PYTHONPATH", "register_pickle_by_value"],
    ),
    "unknown kind": ("MissingModule", unknown_kind, ["'Unheard'", "Import the module", "update rebind"]),
    "not valid": (
        "InvalidPayload",
        not_valid,
        ["TorchEvaluator", "Open it with the libraries that wrote it", "training_func"],
    ),
    "raises": (
        "InvalidPayload",
        lambda: unpack(pack(Broken(), kind="test"), trusted=True),
        ["field 'test'", "ValueError", "Open it with the libraries"],
    ),
    "missing device": ("InvalidPayload", missing_device, ["'cpu'", "'cuda:99'", "Name a device"]),
    "no folder": (
        "Save",
        lambda tmp_path: pack_file(1, tmp_path / "no" / "f", kind="t"),
        ["no/f", "make it before"],
    ),
    "a generator": (
        "NotSerializable",
        lambda: pack({"here": (each for each in [1])}, kind="test"),
        ["test['here']", "Make it inside"],
    ),
    "no json in the summary": (
        "NotSerializable",
        lambda: pack(1, kind="t", summary={"a": object()}),
        ["manifest", "Make the summary of JSON values", "summary.a"],
    ),
}


@pytest.mark.parametrize(("name", "provoke", "told"), CASES.values(), ids=CASES)
def test_an_error_tells_its_place_and_its_cure(name, provoke, told, request):
    """And is of its own type, not of one beside it."""
    arguments = provoke.__code__.co_varnames[: provoke.__code__.co_argcount]
    with pytest.raises(errors.SerializationError) as caught:
        provoke(*map(request.getfixturevalue, arguments))
    assert type(caught.value) is getattr(errors, f"{name}Error")
    for piece in told:
        assert piece in str(caught.value)


def test_every_error_of_files_is_provoked():
    """All leaves of the tree below `SerializationError`."""

    def leaves(error):
        below = error.__subclasses__()
        return {leaf for each in below for leaf in leaves(each)} if below else {error.__name__}

    assert {f"{name}Error" for name, _, _ in CASES.values()} == leaves(errors.SerializationError)
