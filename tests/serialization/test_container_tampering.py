"""No changed, lost or added byte is accepted, and nothing runs before everything is verified."""

from __future__ import annotations

import damage
import pytest
import torch
from canary import SUNG, Singer

from rebind.evaluator_schema.errors import (
    CorruptedError,
    NotARebindFileError,
    SerializationError,
    TooLargeError,
    TruncatedError,
    UntrustedPayloadError,
)
from rebind.serialization import SigningKey, inspect, pack, unpack

KEY = SigningKey("test", b"k" * 32)


@pytest.fixture(autouse=True)
def silence():
    SUNG.clear()


def small_file(key):
    return pack({"canary": Singer(), "tensor": torch.arange(3)}, kind="test", key=key)


OPENINGS = {
    "unsigned": (None, {"trusted": True}),
    "signed": (KEY, {"key": KEY}),
    "signed and only trusted": (KEY, {"trusted": True}),
}


@pytest.fixture(params=OPENINGS.values(), ids=OPENINGS)
def case(request):
    key, arguments = request.param
    return small_file(key), arguments


def assert_refused(data, arguments, what):
    with pytest.raises(SerializationError):
        unpack(data, **arguments)
    assert not SUNG, what


def test_the_untouched_file_opens(case):
    """Otherwise the tests below would show nothing."""
    data, arguments = case
    unpack(data, **arguments)
    assert SUNG == ["sang"]


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_a_changed_byte_anywhere_is_refused_before_anything_is_unpickled(case, mask):
    """Every single byte: length, seal, signature, manifest, padding, tensors, payload."""
    data, arguments = case
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= mask
        assert_refused(bytes(changed), arguments, f"byte {position} changed")


def test_a_file_cut_anywhere_is_refused_before_anything_is_unpickled(case):
    """Every length from 0 on."""
    data, arguments = case
    for length in range(len(data)):
        assert_refused(data[:length], arguments, f"cut to {length}")


def test_a_cut_file_is_called_truncated():
    """Not corrupted, not something else: so that the cure is clear."""
    data = small_file(None)
    for length in range(len(data)):
        with pytest.raises(TruncatedError):
            inspect(data[:length])


def test_bytes_that_were_added_are_refused(case):
    """At the end, in front, and in between."""
    data, arguments = case
    for count in (1, 7, 63, 64, 65, 4096):
        assert_refused(data + bytes(count), arguments, "zeros appended")
        assert_refused(data + data[:count], arguments, "itself appended")
        assert_refused(bytes(count) + data, arguments, "zeros in front")
    for position in range(0, len(data), 5):
        assert_refused(data[:position] + b" " + data[position:], arguments, "one put in")
        assert_refused(data[:position] + data[position + 1 :], arguments, "one taken out")
    assert_refused(data + data, arguments, "twice")


def test_parts_of_two_files_do_not_make_one(case):
    """Not even if both are signed with the key."""
    data, arguments = case
    other = pack({"canary": Singer(), "tensor": torch.arange(3) + 1}, kind="test", key=KEY)
    for position in range(1, min(len(data), len(other))):
        spliced = data[:position] + other[position:]
        if spliced not in (data, other):
            assert_refused(spliced, arguments, f"spliced at {position}")


def test_a_corrupted_entry_is_named():
    """The message says which one it is."""
    data = bytearray(small_file(None))
    manifest = inspect(bytes(data))
    data[-manifest.data_bytes] ^= 1
    with pytest.raises(CorruptedError, match=r"'tensor\.test\.0'"):
        inspect(bytes(data))


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"PK\x03\x04" + bytes(100), "torch.load"),
        (b"\x80\x04\x95" + bytes(100), "pickle"),
        (b"\x40" + bytes(7) + b'{"a":{}}' + b" " * 56, "safetensors"),
        (b"\0" * 200, "not a rebind file"),
        (b"hello, this is some text that is long enough to be told apart", "not a rebind file"),
    ],
)
def test_other_files_are_told_apart(data, hint):
    """And where it can be told, what they are."""
    with pytest.raises(NotARebindFileError, match=hint):
        inspect(data)


def test_pickled_code_needs_a_key_or_trust():
    """The error names what carries code, and says what to do."""
    for key in (None, KEY):
        with pytest.raises(UntrustedPayloadError, match=r"test\. .*trusted=True"):
            unpack(small_file(key))
    assert not SUNG


def test_a_value_of_another_kind_is_refused():
    """A signed message cannot pose as another one."""
    with pytest.raises(NotARebindFileError, match="'model'"):
        unpack(small_file(KEY), key=KEY, kind="model")
    assert not SUNG


def test_more_bytes_than_the_limit_are_refused():
    """The limit is the caller's."""
    data = small_file(None)
    assert inspect(data, max_bytes=len(data)).kind == "test"
    with pytest.raises(TooLargeError, match="max_bytes"):
        inspect(data, max_bytes=len(data) - 1)


WHOLE = pytest.param(1.0, marks=[pytest.mark.long, pytest.mark.timeout(1200)])


@pytest.mark.parametrize("scale", [0.02, WHOLE])
def test_damage_of_every_kind_is_refused(scale):
    """Flips, cuts, splices and hostile headers: nothing opens, no other error, no canary; a share of them."""
    for opening, way, count in damage.counts(scale):
        assert count.is_clean, (opening, way, count)


@pytest.mark.parametrize("opening", damage.OPENINGS)
def test_the_canaries_of_hostile_headers_tell_when_a_check_is_missing(opening, monkeypatch):
    """Without one of them some of the headers open. So it is the checks that keep the canaries silent."""
    monkeypatch.setattr("rebind.serialization.container._RULES", {})
    key, arguments = damage.OPENINGS[opening]
    count = damage.tried(damage.hostile_headers(key), arguments)
    assert count.opened
    assert count.sung >= count.opened
