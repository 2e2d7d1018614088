"""A file's tensors are the mapped file: no copy, and no way back into the file."""

from __future__ import annotations

import gc
import mmap
import os
import re
import resource
from pathlib import Path

import pytest
import torch

from rebind.evaluator_schema.errors import (
    CorruptedError,
    NotARebindFileError,
    TooLargeError,
    TruncatedError,
)
from rebind.serialization import examine, inspect, pack, pack_file, unpack, unpack_file


def private_kibibytes(path):
    """How much memory of our own the mappings of a file take; None if it is not mapped."""
    total = None
    mine = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            mine = line.endswith(str(path))
            total = 0 if mine and total is None else total
        elif mine and line.startswith(("Private_Dirty:", "Anonymous:")):
            total += int(line.split()[1])
    return total


def descriptors():
    return sorted(each.name for each in Path("/proc/self/fd").iterdir())


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    pack_file({"a": torch.zeros(4 << 20, dtype=torch.uint8), "b": torch.ones(1000)}, path, kind="t")
    return path


def test_reading_a_mapped_tensor_takes_no_memory_of_our_own(large):
    """The page cache serves all processes."""
    value = unpack_file(large, trusted=True)
    assert int(value["a"].sum()) == 0
    assert private_kibibytes(large) == 0


def test_writing_to_a_mapped_tensor_never_reaches_the_file(large):
    """Only the pages that were written to become our own."""
    before = large.read_bytes()
    value = unpack_file(large, trusted=True)
    value["a"][:10_000] = 7
    value["b"].mul_(3)
    assert 0 < private_kibibytes(large) < 100
    assert large.read_bytes() == before
    assert int(unpack_file(large, trusted=True)["a"].sum()) == 0


def test_a_mapping_ends_with_its_last_tensor_without_a_garbage_collection(large):
    """No cycle of references holds it."""
    gc.disable()
    try:
        value = unpack_file(large, trusted=True)
        one = value["b"]
        del value
        assert private_kibibytes(large) is not None
        del one
        assert private_kibibytes(large) is None
    finally:
        gc.enable()


def test_tensors_are_aligned_for_vector_registers(large):
    """Each entry starts at a multiple of 64 bytes."""
    for value in (unpack_file(large, trusted=True), unpack(large.read_bytes(), trusted=True)):
        assert value["a"].data_ptr() % 64 == value["b"].data_ptr() % 64 == 0


def test_bytes_that_were_given_are_copied(large):
    """Nobody's own buffer changes under him, nor changes what we gave."""
    data = bytearray(large.read_bytes())
    value = unpack(data, trusted=True)
    value["a"].fill_(9)
    assert bytes(data) == large.read_bytes()
    data[:] = bytes(len(data))
    assert value["b"].sum() == 1000


def test_a_buffer_of_our_own_is_used_in_place():
    """For those who received a message into it."""
    data = bytearray(pack(torch.ones(1000), kind="t"))
    tensor = unpack(data, trusted=True, in_place=True)
    tensor.fill_(0)
    with pytest.raises(CorruptedError):
        inspect(data)


def test_a_mapping_can_be_unpacked(large):
    """Of the caller's own making."""
    with large.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    value = unpack(mapping, trusted=True, in_place=True)
    assert value["b"].sum() == 1000


def test_what_is_no_file_with_content_is_refused(tmp_path):
    """An empty file, a folder, and a pipe that nobody writes to."""
    (tmp_path / "empty").touch()
    with pytest.raises(TruncatedError):
        unpack_file(tmp_path / "empty")
    with pytest.raises(NotARebindFileError):
        inspect(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotARebindFileError):
        inspect(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "missing")


def test_no_descriptor_is_left_open(large):
    """Neither by reading nor by failing to."""
    before = descriptors()
    unpack_file(large, trusted=True)
    with pytest.raises(NotARebindFileError):
        unpack_file(large, trusted=True, kind="other")
    inspect(large)
    assert descriptors() == before


@pytest.mark.parametrize("gibibytes", [40, 80, 4000])
def test_a_file_larger_than_memory_is_told_about_at_once(tmp_path, gibibytes):
    """Sparse files cost their maker nothing, and must cost their reader nothing."""
    path = tmp_path / "f"
    pack_file([1], path, kind="t")
    os.truncate(path, gibibytes << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for opening in (inspect, lambda each: unpack_file(each, trusted=True)):
        with pytest.raises((TruncatedError, TooLargeError)):
            opening(path)
    assert examine(path).problems
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 10  # in KiB


def test_a_file_that_the_system_does_not_map_is_too_large(tmp_path):
    """Under a limit on addresses, as batch systems set it."""
    path = tmp_path / "f"
    pack_file([1], path, kind="t")
    os.truncate(path, 40 << 30)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (20 << 30, hard))
    try:
        with pytest.raises(TooLargeError, match="does not map"):
            unpack_file(path, trusted=True)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
