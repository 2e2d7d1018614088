"""`rebind diff`: where two files differ, without opening them unless told to."""

from __future__ import annotations

import json

from cli_material import KEY, declared, with_code

from rebind.serialization import save


def test_two_files_with_the_same_content_do_not_differ(rebind, files):
    """No output, exit code 0."""
    save(declared(), files / "again")
    assert rebind("diff", files / "declared", files / "again") == (0, "", "")


def test_manifests_are_compared_without_trust(rebind, files):
    """Signature, kind, digests; exit code 1."""
    ran = rebind("diff", files / "code", files / "signed")
    assert ran.code == 1
    assert ran.out.splitlines() == ["signed: False -> True", "key_id: None -> 'ci'"]
    told = json.loads(rebind("diff", files / "declared", files / "code", "--json").out)
    assert told["compared"] == "manifests"
    assert {"path": "payload", "first": "json", "second": "pickle"} in told["differences"]


def test_evaluators_are_compared_where_they_may_be_opened(rebind, files):
    """With a key, with trust, or with the modules that declared ones need."""
    save(with_code(lr=0.5), files / "other", KEY)
    save(declared(lr=0.5), files / "slower")
    ran = rebind("diff", files / "signed", files / "other", "--key-file", files / "key")
    assert (ran.code, ran.err) == (1, "")
    assert "optimizers.kwargs.lr: 0.1 -> 0.5\n" in ran.out
    ran = rebind("diff", files / "declared", files / "slower", "--allow", "cli_material", "--json")
    assert json.loads(ran.out) == {
        "compared": "evaluators",
        "differences": [{"path": "optimizers.kwargs.lr", "first": 0.1, "second": 0.5}],
    }
    ran = rebind("diff", files / "declared", files / "declared", "--trusted")
    assert ran == (0, "", "")


def test_what_may_not_be_opened_is_refused(rebind, files):
    """Unsigned code, although a key was given for the other file."""
    ran = rebind("diff", files / "signed", files / "code", "--key-file", files / "key")
    assert (ran.code, ran.out) == (3, "")
    assert "UnsignedError" in ran.err
