"""A coverage-guided fuzzer of everything that reads a stranger's bytes. `README.md` says how to run it.

Most changes to a file end at its seal. So that the fuzzer reaches what comes after it, an input is a
letter and the parts of a file, and the letter says how far they are put together correctly::

    r  the bytes of a file, as they are
    h  header text, data                       sealed
    u  manifest, layout, payload, memory       with correct sizes and digests, sealed
    s  the same                                signed as well, with a key that the reader does not have

No input is ever opened with trust or with the key that signed it. So only a `RebindError` may come out, and
nothing may be unpickled, started or opened: an audit hook ends the run if something is.
"""

from __future__ import annotations

import json
import os
import random
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["rebind.serialization", "rebind.evaluator_schema"]):
    from rebind import RebindError, TorchEvaluator
    from rebind.serialization import SigningKey, dumps, examine, inspect, loads, unpack, verify
    from rebind.serialization.digests import digest
    from rebind.serialization.header import Slot, write_header

import torch

SEPARATOR = b"\xff\xff"
# What the golden evaluators refer to by name, and so the only strange module that may be imported.
sys.path.append(str(Path(__file__).parent.parent / "golden"))
ALLOW = ["golden_parts"]
OURS, THEIRS = SigningKey("ours", b"o" * 32), SigningKey("theirs", b"t" * 32)
SEALED_AT = len(b'12345678{"__metadata__":{"rebind.seal":"')
FORBIDDEN = {"pickle.find_class", "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen"}
FORBIDDEN |= {"socket.connect", "os.remove", "os.rename", "os.mkdir"}
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**64, 1e308, 0.5, "", "x", "\x1b[31m", [], {}, [[]], "0" * 64),
    *("os:system", "torch:load", "torch.hub:load", "torch.optim:Adam", "torch.nn:Linear", "torch.optim:_x"),
    *({"$tensor": "0"}, {"$tuple": []}, {"$ref": 0}, {"$ref": 9}, {"$call": "torch:abs"}, "pickle", "json"),
    *("float32", "complex64", "bits8", "qint8", "Tensor", "meta", "cuda", "value", "evaluator", "class"),
)

SCRATCH = os.memfd_create("scratch")
watching = False


def watch(event: str, _: tuple[Any, ...]) -> None:
    """End the run if a file that nobody vouches for makes anything happen."""
    if watching and event in FORBIDDEN:
        sys.__stderr__.write(f"CANARY: {event}\n")
        raise SystemError(f"{event} while a stranger's file was read")


def sealed(header: bytes) -> bytes:
    """The header with the seal that belongs to it, if there is room for one."""
    if len(header) < SEALED_AT + 64:
        return header
    before, after = header[:SEALED_AT], header[SEALED_AT + 64 :]
    return before + digest([before + b"0" * 64 + after]).encode() + after


def from_header(text: bytes, data: bytes) -> bytes:
    """A file with this header text."""
    text += b" " * (-(8 + len(text)) % 64)
    return sealed(len(text).to_bytes(8, "little") + text) + data


def from_parts(
    manifest: bytes, layout: bytes, payload: bytes, memory: bytes, key: SigningKey | None
) -> bytes:
    """A file with these parts, whose sizes and digests are right wherever the manifest can hold them."""
    parts = {"tensor.t.0": memory, "layout": layout, "payload": payload}
    entries = {name: part + b"\0" * (-len(part) % 64) for name, part in parts.items() if part}
    slots, position = [], 0
    for name, entry in entries.items():
        slots.append(Slot(name, "U8", position, position + len(entry)))
        position += len(entry)
    text = manifest.decode("utf-8", errors="replace")
    with suppress(ValueError, RecursionError):
        told = json.loads(text)
        if isinstance(told, dict):
            told["digests"] = {name: digest([entry]) for name, entry in entries.items()}
            told |= {"data_bytes": position, "signed": key is not None, "key_id": key and key.id}
            text = json.dumps(told)
    return write_header(slots, text, key) + b"".join(entries.values())


def assembled(data: bytes) -> bytes:
    """The file that an input stands for."""
    kind, parts = data[:1], data[1:].split(SEPARATOR, 3)
    if kind == b"h":
        return from_header(parts[0], b"".join(parts[1:]))
    if kind in (b"u", b"s"):
        return from_parts(*(parts + [b""] * 3)[:4], key=THEIRS if kind == b"s" else None)
    return data[1:]


def read_everything(data: bytes) -> None:
    """Read a file in every way that needs neither trust nor its key."""
    with suppress(RebindError):
        manifest = inspect(data)
        assert all(line.isprintable() for line in str(manifest).splitlines())
        assert repr(manifest).isprintable()
    os.ftruncate(SCRATCH, 0)
    os.pwrite(SCRATCH, data, 0)
    found = examine(f"/proc/self/fd/{SCRATCH}", OURS)
    assert found.problems, "a signature that was made with another key was accepted"
    assert all(line.isprintable() for line in str(found).splitlines())
    with suppress(RebindError):
        verify(data, OURS)
        raise AssertionError("a signature that was made with another key was accepted")
    for key in (None, OURS):
        with suppress(RebindError):
            unpack(data, key=key)
            raise AssertionError("a value was unpickled")
        with suppress(RebindError):
            evaluator = loads(data, key=key, allow=ALLOW)
            assert key is None, "a signature that was made with another key was accepted"
            look_at(evaluator)


def look_at(evaluator: Any) -> None:
    """Touch what came back, to the last byte of every tensor."""
    assert type(evaluator) is TorchEvaluator
    repr(evaluator)
    if isinstance(evaluator.dummy_input, torch.Tensor) and evaluator.dummy_input.numel() < 1 << 20:
        evaluator.dummy_input.clone()
    with suppress(RebindError):
        dumps(evaluator)


def run(data: bytes) -> None:
    """One input of the fuzzer."""
    global watching  # noqa: PLW0603 - an audit hook can never be removed
    try:
        file = assembled(data)
    except RebindError:  # larger than rebind writes
        return
    watching = True
    try:
        read_everything(file)
    finally:
        watching = False


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change a value in the JSON of one part; or any bytes, as the fuzzer likes."""
    chance = random.Random(seed)
    parts = data[1:].split(SEPARATOR, 3)
    place = chance.randrange(len(parts))
    try:
        value = json.loads(parts[place]) if chance.random() < 0.6 else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, (dict, list)) or not value:
        return bytes(atheris.Mutate(data, max_size))
    change_somewhere(value, chance)
    parts[place] = json.dumps(value).encode()
    return (data[:1] + SEPARATOR.join(parts))[:max_size]


def change_somewhere(value: Any, chance: random.Random) -> None:
    """Replace, remove, double or rename something in a JSON value."""
    holders = [value]
    for holder in holders:
        children = holder.values() if isinstance(holder, dict) else holder
        holders.extend(child for child in children if isinstance(child, (dict, list)) and child)
    holder = chance.choice(holders)
    if not isinstance(holder, (dict, list)):
        return
    key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    match chance.randrange(6), holder:
        case 0, _:
            del holder[key]
        case 1, list():
            holder.append(holder[key])
        case 1, dict():
            holder[str(chance.choice(VALUES))] = holder[key]
        case 2, _:
            holder[key] = chance.choice(holders)
            if json_is_cyclic(value):
                holder[key] = None
        case _:
            holder[key] = chance.choice(VALUES)


def json_is_cyclic(value: Any) -> bool:
    """Whether a value holds itself."""
    try:
        json.dumps(value)
    except (ValueError, RecursionError):
        return True
    return False


def main() -> None:
    """Run the fuzzer with libFuzzer's own options."""
    warnings.simplefilter("ignore")
    sys.addaudithook(watch)
    atheris.Setup(sys.argv, run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
