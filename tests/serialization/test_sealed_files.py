"""Files in memory that nobody can change any more."""

from __future__ import annotations

import io
import os

import importable_parts
import pytest
import torch

import rebind
from rebind.evaluator_schema.errors import CorruptedError, NotSerializableError, SerializationError
from rebind.serialization import SigningKey, load, open_evaluator, pack, unpack, unpack_file
from rebind.serialization.packing import draft_value
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


class Writing(io.BytesIO):
    """A file of which one write may fail, and before one of which something may be done."""

    def __init__(self, at=None, do=None):
        super().__init__()
        self.count, self.at, self.do = 0, at, do

    def write(self, data):
        self.count += 1
        if self.count == self.at:
            self.do()
        return super().write(data)


def large(tensor):
    return draft_value([tensor, tensor[5:], torch.ones(3)], kind="t", key=KEY)


@pytest.mark.parametrize("unchanged", [True, False])
@pytest.mark.parametrize("size", [0, 10, (4 << 20) + 7, 9 << 20])
def test_a_file_is_the_same_however_it_was_written(unchanged, size):
    """Digested in this thread or beside it, once or twice; with pieces of any size."""
    tensor = torch.randint(0, 256, (size,), dtype=torch.uint8)
    draft, file = large(tensor), Writing()
    draft.write(file, unchanged=unchanged)
    assert len(file.getvalue()) == draft.nbytes
    assert file.getvalue() == draft.to_bytes()
    back = unpack(file.getvalue(), key=KEY)
    assert torch.equal(back[0], tensor)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("where", [[0], [-1], [4 << 20], [0, -1], [4 << 20, -1]], ids=str)
def test_a_file_is_of_one_moment_or_none(at, where):
    """The memory is changed at its begin, in the middle, at its end or at two places, between two writes."""
    tensor = torch.zeros(9 << 20, dtype=torch.uint8)

    def change():
        tensor[where] += 1

    file = Writing(at, change)
    try:
        large(tensor).write(file, unchanged=True)
    except NotSerializableError as error:
        assert str(error).startswith("Tensors were changed while they were written")
    else:
        read = unpack(file.getvalue(), key=KEY)[0]
        assert torch.equal(read, tensor) or not read.any()


@pytest.mark.parametrize("unchanged", [True, False])
@pytest.mark.parametrize("at", [1, 3, 7])
def test_a_write_that_fails_ends_the_writing(unchanged, at):
    """No thread waits for the rest."""

    def fail():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        large(torch.zeros(9 << 20, dtype=torch.uint8)).write(Writing(at, fail), unchanged=unchanged)


@pytest.mark.parametrize("unchanged", [True, False])
def test_a_digest_that_fails_ends_the_writing(unchanged, monkeypatch):
    """Likewise."""

    def fail(chunks, *, threads):
        next(iter(chunks))
        raise MemoryError

    monkeypatch.setattr("rebind.serialization.writing.digest", fail)
    with pytest.raises(MemoryError):
        large(torch.zeros(9 << 20, dtype=torch.uint8)).write(Writing(), unchanged=unchanged)
