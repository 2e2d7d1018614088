"""Files in memory that nobody can change any more."""

from __future__ import annotations

import os

import importable_parts
import pytest
import torch

import rebind
from rebind.evaluator_schema.errors import CorruptedError, SerializationError
from rebind.serialization import SigningKey, load, open_evaluator, pack, unpack_file
from rebind.serialization.seals import is_sealed, memory_file, seal

KEY = SigningKey("test", b"k" * 32)
EDGE = b"\x07" * 64


@pytest.fixture
def memory():
    """Write bytes to a file in memory; gives its path."""
    files = []

    def write(data, sealed):
        file = memory_file()
        files.append(file)
        file.write(data)
        file.flush()
        if sealed:
            seal(file)
        assert is_sealed(file.fileno()) == sealed
        return f"/proc/{os.getpid()}/fd/{file.fileno()}"

    yield write
    for file in files:
        file.close()


def evaluator():
    model = torch.nn.Linear(2, 1)
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    dummy = torch.full((64,), 7, dtype=torch.uint8)
    return rebind.TorchEvaluator(
        importable_parts.train, optimizer, torch.nn.functional.mse_loss, dummy_input=dummy, model=model
    )


FILES = {
    "evaluator": (lambda: rebind.dumps(evaluator(), KEY), open_evaluator),
    "value": (lambda: pack(torch.full((64,), 7, dtype=torch.uint8), kind="t", key=KEY), unpack_file),
}


def opened(data, opening, path, **options):
    value = opening(path, key=KEY, **options)
    with_tensor = value.rehydrate().dummy_input if hasattr(value, "rehydrate") else value
    return with_tensor.tolist()


@pytest.mark.parametrize("kind", FILES)
def test_a_sealed_file_is_not_read_through_where_that_was_asked_for(kind, memory):
    """Its sealer stands for the tensors; of a file that is not sealed each byte is checked."""
    make, opening = FILES[kind]
    data = make()
    other = data.replace(EDGE, b"\x08" + EDGE[1:])
    assert other != data
    for sealed in (True, False):
        path = memory(data, sealed)
        assert opened(data, opening, path, verify_tensors="unless sealed") == [7] * 64
        path = memory(other, sealed)
        with pytest.raises(CorruptedError):
            opened(data, opening, path)
        if sealed:
            assert opened(data, opening, path, verify_tensors="unless sealed")[0] == 8
        else:
            with pytest.raises(CorruptedError):
                opened(data, opening, path, verify_tensors="unless sealed")


@pytest.mark.parametrize("kind", FILES)
def test_all_else_in_a_sealed_file_is_checked(kind, memory):
    """No changed byte outside of the tensors opens."""
    make, opening = FILES[kind]
    data = make()
    tensor = data.index(EDGE)
    for at in range(0, len(data), 7):
        if not tensor <= at < tensor + len(EDGE):
            path = memory(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :], sealed=True)
            with pytest.raises(SerializationError):
                opening(path, key=KEY, verify_tensors="unless sealed")


def test_loading_does_not_take_a_seal_for_a_signature(memory):
    """A stranger can seal a file, too."""
    data = rebind.dumps(evaluator(), KEY).replace(EDGE, b"\x08" + EDGE[1:])
    with pytest.raises(CorruptedError):
        load(memory(data, sealed=True), KEY)


def test_files_on_disk_and_other_things_are_not_sealed(tmp_path):
    """The system says so, or says that they cannot be."""
    (tmp_path / "f").write_bytes(b"x")
    reader, writer = os.pipe()
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        assert not any(map(is_sealed, (reader, writer, descriptor)))
    finally:
        for each in (reader, writer, descriptor):
            os.close(each)


def test_where_there_are_no_seals_there_is_no_file_in_memory(monkeypatch):
    """On other systems, or where this one is set up to refuse them."""
    with monkeypatch.context() as patch:
        patch.delattr(os, "memfd_create")
        assert memory_file() is None

    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert memory_file() is None
