"""What a person sees of a file."""

from __future__ import annotations

import pytest
import torch

from rebind.evaluator_schema.errors import NotSerializableError
from rebind.serialization import Manifest, SigningKey, inspect, pack, pack_file


def manifest():
    value = {"weight": torch.zeros(300, 2), "half": torch.zeros(0, dtype=torch.bfloat16)}
    summary = {"optimizers": [{"target": "torch.optim:SGD", "parameters": 2}], "names": ["a", "b"]}
    return inspect(pack(value, kind="model", key=SigningKey("ci", b"k" * 32), summary=summary))


def test_a_manifest_reads_as_a_tree():
    """Kind and signature, versions, code, summary, tensors, digests."""
    text = str(manifest())
    for line in (
        "model (signed with key 'ci')",
        "├── pickled code: model",
        "│   ├── optimizers",
        "target: torch.optim:SGD",
        "│   └── names: a, b",
        "│   ├── model.0  float32 [300, 2], 2.3 KiB",
        "│   └── model.1  bfloat16 [0], 0 B",
    ):
        assert line in text
    assert f"torch {torch.__version__}" in text


def test_a_manifest_is_short_in_a_repr():
    """One line."""
    assert repr(manifest()).startswith("Manifest(model, format 1, signed with key 'ci', ")
    assert "\n" not in repr(manifest())


def test_a_manifest_travels_as_json():
    """For `--json`, and for other programs."""
    told = manifest()
    assert Manifest.model_validate_json(told.model_dump_json()) == told
    assert told.tensor_bytes == 2400


def test_a_path_and_bytes_give_the_same_manifest(tmp_path):
    """As text or as a path."""
    pack_file([1], tmp_path / "f", kind="t")
    told = inspect(tmp_path / "f")
    assert told == inspect(str(tmp_path / "f")) == inspect((tmp_path / "f").read_bytes())


def test_a_strangers_names_do_not_reach_the_terminal():
    """Terminal codes and line ends are shown, not obeyed."""
    told = inspect(pack([1], kind="\x1b[31mred\nline", summary={"\x07": "\x9b2J"}))
    assert not set(str(told)) & {"\x1b", "\x07", "\x9b"}
    assert str(told).startswith("\\x1b[31mred\\nline (unsigned)\n")
    assert "\x1b" not in repr(told)


def test_a_summary_that_is_no_json_is_refused():
    """When it is written, not when somebody reads it."""
    with pytest.raises(NotSerializableError, match="JSON"):
        pack([1], kind="t", summary={"a": object()})
