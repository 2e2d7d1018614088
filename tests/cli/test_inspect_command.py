"""`rebind inspect` and `rebind verify`: the truth about any file, and nothing in it runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from cli_material import KEY, declared

from rebind.serialization import SigningKey, inspect, pack, save


def test_a_file_is_told_as_a_tree(rebind, files):
    """Kind, signature, code, versions, summary, entries with their sizes."""
    save(declared(dummy_input=torch.ones(3, 2)), files / "f", KEY)
    ran = rebind("inspect", files / "f")
    assert (ran.code, ran.err) == (0, "")
    for line in (
        "TorchEvaluator (signed with key 'ci')",
        "signature: signed with key 'ci', not verified: that needs the key",
        "pickled code: none, opens without trust",
        "TorchEvaluator.0  float32 [3, 2], 24 B",
        "target: torch.optim:SGD",
        "payload  448 B, whole",
        f"torch {torch.__version__}",
    ):
        assert line in ran.out


def test_the_json_of_a_file_holds_its_manifest(rebind, files):
    """As `rebind.inspect` gives it, with the state of each entry and of the signature."""
    ran = rebind("inspect", files / "signed", "--json")
    told = json.loads(ran.out)
    assert told["manifest"] == inspect(files / "signed").model_dump(mode="json")
    assert told["manifest"]["code_fields"] == ["evaluating_func"]
    assert {entry["state"] for entry in told["entries"]} == {"whole"}
    assert (told["problems"], told["verified"]) == ([], False)
    assert told["file_bytes"] == (files / "signed").stat().st_size


def damaged(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def flip(position):
    def change(data):
        data[position] ^= 1

    return change


def cut(length):
    def change(data):
        del data[length:]

    return change


@pytest.mark.parametrize(
    ("change", "problem", "state"),
    [
        (flip(-1), "CorruptedError", "changed"),
        (cut(-64), "TruncatedError", "cut off"),
        (lambda data: data.extend(b"more"), "TruncatedError", "whole"),
    ],
    ids=["changed", "cut", "appended"],
)
def test_a_damaged_file_is_told_as_far_as_it_is_whole(rebind, files, change, problem, state):
    """The manifest, which entry is damaged, and what opening would say."""
    damaged(files / "signed", change)
    ran = rebind("inspect", files / "signed")
    assert ran.code == 3
    assert "TorchEvaluator (signed with key 'ci')" in ran.out
    assert f", {state}\n" in next(line + "\n" for line in ran.out.splitlines() if "payload  " in line)
    assert ran.err.startswith(f"rebind: {files / 'signed'}: {problem}: ")
    told = json.loads(rebind("inspect", files / "signed", "--json").out)
    assert [each["error"] for each in told["problems"]] == [problem]
    assert told["manifest"]["kind"] == "TorchEvaluator"


def test_a_file_without_a_readable_header_is_told_by_its_error(rebind, files):
    """Each is one line on standard error, and JSON stays JSON."""
    damaged(files / "code", flip(300))
    (files / "text").write_text("hello, this is some text and no evaluator")
    (files / "empty").touch()
    for name, error in (
        ("code", "CorruptedError"),
        ("text", "NotARebindFileError"),
        ("empty", "TruncatedError"),
        (".", "NotARebindFileError"),
    ):
        ran = rebind("inspect", files / name, "--json")
        assert ran.code == 3
        told = json.loads(ran.out)
        assert told["manifest"] is None
        assert [each["error"] for each in told["problems"]] == [error]
        assert ran.err.count("\n") == 1


def test_every_truncation_of_a_file_gets_a_report(rebind, files):
    """Exit code 3 and no traceback, wherever it was cut."""
    data = (files / "signed").read_bytes()
    for length in range(0, len(data), 37):
        (files / "cut").write_bytes(data[:length])
        ran = rebind("inspect", files / "cut")
        assert ran.code == 3
        assert "TruncatedError" in ran.err


def test_a_strangers_names_do_not_reach_the_terminal(rebind, files):
    """Neither in the tree, nor in JSON, nor in an error."""
    (files / "f").write_bytes(pack([1], kind="\x1b[31mred\nline", summary={"\x07": "\x9b2J"}))
    for ran in (
        rebind("inspect", files / "f"),
        rebind("inspect", files / "f", "--json"),
        rebind("diff", files / "f", files / "code"),
        rebind("run", files / "f", "--model", "cli_material:small", "--trusted"),
    ):
        assert not set(ran.out + ran.err) & {"\x1b", "\x07", "\x9b"}


def test_quick_reads_no_entries(rebind, files):
    """A damaged payload goes unnoticed, and the report says that it was not checked."""
    damaged(files / "code", flip(-1))
    ran = rebind("inspect", files / "code", "--quick")
    assert ran.code == 0
    assert "payload  " in ran.out
    assert "not checked" in ran.out


def test_a_signature_is_verified_with_a_key(rebind, files, monkeypatch):
    """From a file or a variable, the right one of several."""
    monkeypatch.setenv("TEST_KEY", (files / "key").read_text())
    SigningKey.generate("other").to_file(files / "other")
    ran = rebind("verify", files / "signed", "--key-file", files / "key")
    assert ran == (0, f"{files / 'signed'}: whole, signed with key 'ci', verified\n", "")
    assert rebind("verify", files / "signed", "--key-env", "TEST_KEY").code == 0
    both = ("--key-file", files / "other", "--key-file", files / "key")
    assert rebind("verify", files / "signed", *both).code == 0
    assert json.loads(rebind("verify", files / "signed", *both, "--json").out)["verified"]
    ran = rebind("inspect", files / "signed", "--key-file", files / "key")
    assert "signature: signed with key 'ci', verified" in ran.out


def test_a_file_that_is_not_signed_with_the_key_is_refused(rebind, files):
    """Unsigned, signed by another one, damaged: exit code 3, and the reason."""
    SigningKey.generate("other").to_file(files / "other")
    SigningKey("ci", b"x" * 32).to_file(files / "same name")
    for name, key, error in (
        ("code", "key", "UnsignedError"),
        ("signed", "other", "UnknownKeyError"),
        ("signed", "same name", "WrongKeyError"),
    ):
        ran = rebind("verify", files / name, "--key-file", files / key)
        assert (ran.code, ran.out) == (3, "")
        assert error in ran.err
        assert not json.loads(rebind("verify", files / name, "--key-file", files / key, "--json").out)[
            "verified"
        ]
    damaged(files / "signed", flip(-1))
    ran = rebind("verify", files / "signed", "--key-file", files / "key")
    assert (ran.code, ran.out) == (3, "")
    assert "'payload'" in ran.err


def test_verify_wants_a_key(rebind, files):
    """There is nothing to verify without."""
    ran = rebind("verify", files / "signed")
    assert ran.code == 2
    assert "--key-file" in ran.err


class Singer:
    """A canary: ends the process where it is unpickled."""

    def __reduce__(self):
        return sys.exit, ("sang",)


def test_no_command_that_looks_at_a_file_opens_it(rebind, files):
    """Nothing in it is unpickled, and none of its modules imported."""
    data = pack(Singer(), kind="t", key=KEY)
    (files / "f").write_bytes(data)
    for arguments in (
        ("inspect", files / "f", "--key-file", files / "key"),
        ("verify", files / "f", "--key-file", files / "key"),
        ("diff", files / "f", files / "f"),
    ):
        assert rebind(*arguments).code == 0
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "rebind", "inspect", str(files / "code")],
        capture_output=True,
        text=True,
        check=True,
        cwd=files,
    )
    assert "cli_material" in done.stdout
    assert "cli_material" not in done.stderr
    assert "cloudpickle" not in done.stderr
