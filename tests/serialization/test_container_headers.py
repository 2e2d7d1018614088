"""Headers made by someone who knows the format: sealed correctly, and hostile."""

from __future__ import annotations

import contextlib
import json
import resource

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rebind.evaluator_schema.errors import (
    CorruptedError,
    NewerFormatError,
    NotARebindFileError,
    RebindError,
    SerializationError,
    TooLargeError,
)
from rebind.serialization import inspect, loads, pack, unpack
from rebind.serialization.digests import NO_DIGEST, digest
from rebind.serialization.format import FORMAT, MAX_HEADER_BYTES

OPENING = b'{"__metadata__":{"rebind.seal":"'
SIGNED_OPENING = OPENING + b"0" * 64 + b'","rebind.signature":"' + b"0" * 64


def sealed(text, data=b"", key=None):
    """A file with this header text, padded, signed and sealed as rebind does.

    The seal is 64 zeros in the text, and so is the signature if there is a key.
    """
    if isinstance(text, str):
        text = text.encode()
    text += b" " * (-(8 + len(text)) % 64)
    raw = len(text).to_bytes(8, "little") + text
    if key is not None:
        stop = 8 + len(SIGNED_OPENING)
        assert raw[8:stop] == SIGNED_OPENING
        raw = raw[: stop - 64] + key.sign(raw).encode() + raw[stop:]
    place = 8 + len(OPENING)
    return raw[:place] + digest([raw]).encode() + raw[place + 64 :] + data


def parts(value=None, key=None):
    """The header and the data of a good file, as objects that a test can change."""
    data = pack({"x": torch.arange(16)} if value is None else value, kind="test", key=key)
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    manifest = json.loads(header["__metadata__"]["rebind.manifest"])
    return header, manifest, data[length:]


def rebuilt(header, manifest, data, key=None):
    header["__metadata__"] |= {
        "rebind.seal": NO_DIGEST,
        "rebind.signature": NO_DIGEST,
        "rebind.manifest": json.dumps(manifest, separators=(",", ":"), ensure_ascii=False),
    }
    return sealed(json.dumps(header, separators=(",", ":")), data, key)


def test_a_file_that_is_taken_apart_and_put_together_again_opens():
    """Otherwise the tests below would show nothing."""
    assert unpack(rebuilt(*parts()), trusted=True)["x"].tolist() == list(range(16))


def set_offsets(name, *offsets):
    def change(header, manifest):
        header[name]["data_offsets"] = list(offsets)

    return change


def in_entry(name, **fields):
    def change(header, manifest):
        header[name] |= fields

    return change


def in_manifest(**fields):
    def change(header, manifest):
        manifest.update(fields)

    return change


def without(*names):
    def change(header, manifest):
        for name in names:
            del manifest[name]

    return change


def rename_entry(header, manifest):
    header["other"] = header.pop("payload")


def swap_entries(header, manifest):
    header["tensor.test.0"] = header.pop("tensor.test.0")


def more_metadata(header, manifest):
    header["__metadata__"]["format"] = "pt"


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = {"a": value}
    return value


TENSOR = "tensor.test.0"
HOSTILE = {
    "a hole": set_offsets(TENSOR, 64, 128),
    "an overlap": set_offsets("layout", 0, 128),
    "backwards": set_offsets(TENSOR, 128, 0),
    "beyond the end": set_offsets("payload", 256, 1 << 40),
    "beyond 64 bits": set_offsets(TENSOR, 0, 1 << 70),
    "negative": set_offsets(TENSOR, -64, 64),
    "a fraction": set_offsets(TENSOR, 0, 128.0),
    "true": set_offsets(TENSOR, False, 128),
    "three offsets": set_offsets(TENSOR, 0, 128, 192),
    "a wrong shape": in_entry(TENSOR, shape=[15]),
    "a huge shape": in_entry(TENSOR, shape=[1 << 62]),
    "two dimensions": in_entry(TENSOR, shape=[4, 4]),
    "an unknown dtype": in_entry(TENSOR, dtype="F12"),
    "no dtype": in_entry(TENSOR, dtype=None),
    "one more field": in_entry(TENSOR, more=1),
    "an entry renamed": rename_entry,
    "entries out of order": swap_entries,
    "more metadata": more_metadata,
    "a digest missing": in_manifest(digests={}),
    "digests that are none": in_manifest(digests=dict.fromkeys(["payload"], "z" * 64)),
    "no code fields": in_manifest(code_fields=[]),
    "no fields": in_manifest(fields=[]),
    "json with code": in_manifest(payload="json"),
    "a value without fields": in_manifest(payload="json", fields=[], code_fields=[]),
    "a value of two fields": in_manifest(fields=["a", "b"], code_fields=["a", "b"]),
    "an unknown payload": in_manifest(payload="yaml"),
    "signed without a signature": in_manifest(signed=True, key_id="a"),
    "a key id without a signature": in_manifest(signed=False, key_id="a"),
    "a tensor in no entry": in_manifest(
        tensors=[{"name": "a", "dtype": "f", "shape": [], "bytes": 4, "device": "cpu", "entry": "no"}]
    ),
    "a negative size": in_manifest(data_bytes=-1),
    "a wrong size": in_manifest(data_bytes=64),
    "an unknown field": in_manifest(other=1),
    "deep": in_manifest(summary=nested(400)),
    "very deep": in_manifest(summary=nested(900)),
    "no kind": without("kind"),
    "no format": without("format"),
    "format 0": in_manifest(format=0),
    "format true": in_manifest(format=True),
    "format as text": in_manifest(format="1"),
    "half a character": in_manifest(kind="\ud800"),
}
# Signed with the key, this one would be a good file.
LACK_A_SIGNATURE = {"signed without a signature"}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_refused_although_its_seal_fits(change):
    """By `inspect`, and by `unpack` even if told to trust it."""
    header, manifest, data = parts()
    change(header, manifest)
    hostile = rebuilt(header, manifest, data)
    for opening in (inspect, lambda each: unpack(each, trusted=True), loads):
        with pytest.raises(SerializationError) as caught:
            opening(hostile)
        assert isinstance(caught.value, (CorruptedError, NotARebindFileError)), caught.value


def test_duplicate_keys_are_refused():
    """At every level; JSON readers differ in which of two they believe."""
    header, manifest, data = parts()
    good = rebuilt(header, manifest, data)
    text = good[8 : len(good) - len(data)].replace(good[8 + len(OPENING) :][:64], b"0" * 64)
    for once, twice in [
        (b'"dtype":"I64"', b'"dtype":"I64","dtype":"I64"'),
        (b'"rebind.manifest":', b'"rebind.manifest":"{}","rebind.manifest":'),
        (b'\\"kind\\":', b'\\"kind\\":\\"a\\",\\"kind\\":'),
        (b',"payload":{', b',"payload":{},"payload":{'),
    ]:
        assert once in text
        with pytest.raises(CorruptedError):
            inspect(sealed(text.rstrip().replace(once, twice, 1), data))


@pytest.mark.parametrize(
    "text",
    [
        SIGNED_OPENING + b'"}}',
        OPENING + b"0" * 64 + b'"}}' + b" " * 200,
        OPENING + b"0" * 64 + b'","rebind.signature":' + b"[" * 5000,
        SIGNED_OPENING + b'","a":' + b"9" * 5000 + b"}}",
        SIGNED_OPENING + b'","a":NaN}}' + b" " * 100,
        SIGNED_OPENING + b'","a":"\xff\xfe"}}' + b" " * 100,
        SIGNED_OPENING + b'","rebind.manifest":"\\ud800"}}' + b" " * 100,
        SIGNED_OPENING + b'","rebind.manifest":"[]"}}' + b" " * 100,
        SIGNED_OPENING + b'","rebind.manifest":1}}' + b" " * 100,
    ],
)
def test_a_header_that_is_hardly_json_is_refused(text):
    """Whatever follows the opening."""
    with pytest.raises((CorruptedError, NotARebindFileError)):
        inspect(sealed(text))


def test_a_header_that_claims_to_be_huge_is_refused_at_once():
    """Before anything of that size is read or made."""
    for claimed in (MAX_HEADER_BYTES + 1, 1 << 40, (1 << 64) - 1):
        with pytest.raises(TooLargeError):
            inspect(claimed.to_bytes(8, "little") + OPENING + b"0" * 500)


def test_a_header_at_the_limit_costs_bounded_memory():
    """The most expensive JSON of that size, sealed."""
    head = SIGNED_OPENING + b'","a":['
    text = head + b"[[],{}]," * ((MAX_HEADER_BYTES - len(head) - 64) // 8) + b"0]}}"
    hostile = sealed(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptedError):
        inspect(hostile)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # in KiB


def test_a_newer_format_is_told_with_the_version_that_wrote_it():
    """Even if its manifest has fields that nobody here knows."""
    header, manifest, data = parts()
    manifest = {"format": FORMAT + 1, "versions": {"rebind": "9.1"}, "unheard": "of"}
    with pytest.raises(NewerFormatError, match=rf"format {FORMAT + 1}, written by rebind 9\.1"):
        inspect(rebuilt(header, manifest, data))


LAYOUTS = {
    "not json": b"nonsense",
    "a list": b"[]",
    "an unknown entry": b'{"segments":[["no",0,4,"cpu"]]}',
    "beyond its entry": b'{"segments":[["payload",0,999999,"cpu"]]}',
    "a negative offset": b'{"segments":[["payload",-4,4,"cpu"]]}',
    "a span of no segment": b'{"spans":[[0,0]]}',
    "a span beyond its segment": b'{"segments":[["payload",0,4,"cpu"]],"spans":[[0,5]]}',
    "a buffer of no segment": b'{"buffers":[0]}',
    "a view of no span": b'{"views":[[0,"float32",[1],[1],false,false]]}',
    "twice": b'{"spans":[],"spans":[]}',
    "one too few": b'{"segments":[["payload",0,4]]}',
    "no tensors at all": b"{}",
}


def with_layout(layout, value=None, key=None):
    """A file with this layout, and a digest of it that fits."""
    header, manifest, data = parts(value, key)
    start, stop = header["layout"]["data_offsets"]
    data = data[:start] + layout.ljust(stop - start, b"\0") + data[stop:]
    manifest["digests"]["layout"] = digest([data[start:stop]])
    return rebuilt(header, manifest, data, key)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_hostile_layout_is_refused(layout):
    """With digests that fit."""
    with pytest.raises(CorruptedError):
        unpack(with_layout(layout), trusted=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.data())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_change_to_header_and_manifest_gives_a_manifest_or_a_typed_error(data):
    """Random JSON at random places, sealed correctly."""
    header, manifest, body = parts()
    part = data.draw(st.sampled_from([header, manifest, header["payload"], manifest["tensors"][0]]))
    key = data.draw(st.sampled_from(sorted(part)) | st.text(max_size=10))
    part[key] = data.draw(JSON)
    if not isinstance(header.get("__metadata__"), dict):
        header["__metadata__"] = {}
    try:
        hostile = rebuilt({"__metadata__": header.pop("__metadata__"), **header}, manifest, body)
    except UnicodeEncodeError:
        return
    with contextlib.suppress(RebindError):
        assert inspect(hostile).format == FORMAT


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=300)
def test_any_bytes_give_a_typed_error(data):
    """Alone, after an opening, and as a sealed header."""
    for each in (data, (64).to_bytes(8, "little") + OPENING + data):
        with pytest.raises(SerializationError):
            inspect(each)
    with pytest.raises(SerializationError):
        inspect(sealed(SIGNED_OPENING + data))


def test_what_could_not_be_read_again_is_not_written(monkeypatch):
    """A manifest, a layout or a declaration beyond the bounds of the reader."""
    with pytest.raises(TooLargeError, match="manifest"):
        pack([1], kind="t", summary={"a": "x" * (4 << 20)})
    monkeypatch.setattr("rebind.serialization.strict_json.MAX_JSON_BYTES", 1000)
    with pytest.raises(TooLargeError, match="layout"):
        pack([torch.ones(1) for _ in range(200)], kind="t")
