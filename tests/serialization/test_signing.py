"""Keys: who wrote these bytes, and secrets that stay secret."""

from __future__ import annotations

import copy
import os
import pickle
import stat

import pytest

from rebind.evaluator_schema.errors import (
    CorruptedError,
    InvalidKeyError,
    NotSerializableError,
    UnknownKeyError,
    UnsignedError,
    WrongKeyError,
)
from rebind.serialization import SigningKey, inspect, pack, unpack, verify

OLD = SigningKey("2024", b"o" * 32)
NEW = SigningKey("2025", b"n" * 40)
BARE = b"b" * 32


def test_what_a_key_signed_it_opens():
    """Named keys and bare bytes."""
    for key in (OLD, NEW, BARE, bytearray(BARE)):
        assert unpack(pack([1], kind="t", key=key), key=key) == [1]


def test_keys_are_rotated_by_accepting_several():
    """The first of a list signs, any of it verifies."""
    data = pack(1, kind="t", key=[NEW, OLD])
    assert inspect(data).key_id == "2025"
    assert unpack(data, key=[OLD, NEW]) == 1
    assert unpack(pack(2, kind="t", key=OLD), key=[NEW, BARE, OLD]) == 2


def test_a_key_that_was_not_given_is_named():
    """The message says which one signed."""
    with pytest.raises(UnknownKeyError, match=r"'2024'.*given are '2025'"):
        unpack(pack(1, kind="t", key=OLD), key=NEW)


def test_another_secret_under_the_same_name_is_refused():
    """And a bare key that is another one."""
    other = SigningKey("2024", b"x" * 32)
    for key in (other, b"x" * 32, [other, NEW]):
        with pytest.raises(WrongKeyError):
            unpack(pack(1, kind="t", key=OLD), key=key)


def test_names_do_not_stand_in_the_way_of_the_right_secret():
    """A bare key opens what it signed under a name, and the other way around."""
    assert unpack(pack(1, kind="t", key=OLD), key=OLD.secret) == 1
    assert unpack(pack(1, kind="t", key=BARE), key=SigningKey("named", BARE)) == 1


def test_a_key_and_unsigned_bytes_are_an_error():
    """Also if the reader says that it trusts them: a key that is given is verified."""
    for trusted in (False, True):
        with pytest.raises(UnsignedError):
            unpack(pack(1, kind="t"), key=OLD, trusted=trusted)


def test_trust_does_not_replace_a_key_that_is_given():
    """A wrong one is refused although the bytes are trusted."""
    with pytest.raises(UnknownKeyError):
        unpack(pack(1, kind="t", key=OLD), key=NEW, trusted=True)


def test_a_signature_covers_everything_that_the_seal_covers():
    """Whoever changes the content and seals it again without the key is found out."""
    from test_container_headers import digest, json, sealed

    data = pack(1, kind="t", key=OLD)
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    manifest = json.loads(header["__metadata__"]["rebind.manifest"])
    payload = bytearray(data[length:])
    payload[payload.index(b"K\x01") + 1] = 2
    manifest["digests"]["payload"] = digest([payload])
    header["__metadata__"] |= {
        "rebind.seal": "0" * 64,
        "rebind.manifest": json.dumps(manifest, separators=(",", ":")),
    }
    forged = sealed(json.dumps(header, separators=(",", ":")), bytes(payload))
    assert unpack(forged, trusted=True) == 2
    with pytest.raises(WrongKeyError):
        unpack(forged, key=OLD)
    with pytest.raises(WrongKeyError):
        verify(forged, OLD)


def test_a_signature_in_other_letters_is_refused():
    """There is one way to write a signature."""
    from test_container_headers import sealed

    data = pack(1, kind="t", key=OLD)
    length = 8 + int.from_bytes(data[:8], "little")
    place = data.index(b"rebind.signature") + 19
    upper = data[:place] + data[place : place + 64].upper() + data[place + 64 :]
    text = upper[8:length].rstrip()
    seal = text.index(b"rebind.seal") + 14
    text = text[:seal] + b"0" * 64 + text[seal + 64 :]
    with pytest.raises(CorruptedError):
        unpack(sealed(text, data[length:]), key=OLD)


def test_verify_says_what_it_verified():
    """It gives the manifest, and runs nothing."""
    data = pack(1, kind="t", key=OLD)
    assert verify(data, [NEW, OLD]).key_id == "2024"
    with pytest.raises(UnsignedError):
        verify(pack(1, kind="t"), OLD)


@pytest.mark.parametrize(
    "key",
    [b"short", b"", "text", 5, [], [b"short"], ["text"], [BARE, 5]],
    ids=str,
)
def test_what_is_no_key_is_refused(key):
    """Also when signing: nothing is ever signed with a weak key. It is a ValueError, too."""
    with pytest.raises(InvalidKeyError):
        pack(1, kind="t", key=key)
    with pytest.raises(ValueError, match="key"):
        unpack(pack(1, kind="t"), key=key, trusted=True)


@pytest.mark.parametrize("name", ["a b", "a\nb", "ä", "x" * 129, 5])
def test_a_key_name_is_short_and_visible(name):
    """It is printed by those who inspect a stranger's file."""
    with pytest.raises(InvalidKeyError):
        SigningKey(name, BARE)


def test_a_secret_is_never_shown_and_never_pickled():
    """Neither by `repr` nor by an evaluator that refers to the key."""
    key = SigningKey.generate("mine")
    for text in (repr(key), str(key), f"{key}", repr([key])):
        assert "mine" in text
        assert repr(key.secret)[2:-1] not in text
    with pytest.raises(TypeError, match="mine"):
        pickle.dumps(key)
    with pytest.raises(NotSerializableError, match="closes over 'key'"):
        pack(lambda: key, kind="t")
    assert copy.deepcopy(key) is copy.copy(key) is key


def test_generated_keys_differ_and_are_long_enough():
    """32 random bytes."""
    assert len(SigningKey.generate("a").secret) == 32
    assert SigningKey.generate("a") != SigningKey.generate("a")


def test_a_key_comes_back_from_its_file_which_only_its_owner_reads(tmp_path):
    """And a key is never overwritten."""
    path = tmp_path / "key"
    OLD.to_file(path)
    assert SigningKey.from_file(path) == OLD
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        NEW.to_file(path)


def test_bare_bytes_in_a_file_are_a_key(tmp_path, monkeypatch):
    """With or without a name, and a line end that an editor left."""
    path = tmp_path / "key"
    path.write_bytes(BARE + b"\n")
    assert SigningKey.from_file(path) == SigningKey("", BARE)
    assert SigningKey.from_file(path, "named") == SigningKey("named", BARE)
    monkeypatch.setenv("TEST_KEY", os.fsdecode(BARE))
    assert SigningKey.from_env("TEST_KEY") == SigningKey("", BARE)


def test_a_missing_or_short_key_is_told_by_its_place(tmp_path, monkeypatch):
    """The variable or the file, never the content."""
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(InvalidKeyError, match="TEST_KEY is not set"):
        SigningKey.from_env("TEST_KEY")
    path = tmp_path / "key"
    path.write_bytes(b"hunter2")
    with pytest.raises(InvalidKeyError, match=str(path)) as caught:
        SigningKey.from_file(path)
    assert "hunter2" not in str(caught.value)
