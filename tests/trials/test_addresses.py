"""The name under which a file goes to workers: one for each content, at the cost of its header."""

from __future__ import annotations

import pytest
import torch

import rebind
from rebind.runtime.pools.addresses import address


def saved(path, value):
    layer = torch.nn.Linear(1, 1)
    optimizer = rebind.trace(torch.optim.SGD)(layer.parameters(), lr=0.1)
    dummy = torch.full((1 << 16, 1), value)
    loss = torch.nn.functional.mse_loss
    evaluator = rebind.TorchEvaluator(train, optimizer, loss, dummy_input=dummy, model=layer)
    rebind.save(evaluator, path)
    return path


def train(model, optimizers, criterion):
    """Never runs here."""


def test_a_name_is_that_of_a_content(tmp_path):
    """The same content has it wherever it lies; another value, deep in a tensor, has another."""
    first, again = saved(tmp_path / "first", 1.0), tmp_path / "again"
    again.write_bytes(first.read_bytes())
    assert address(first) == address(again)
    assert address(first) != address(saved(tmp_path / "other", 2.0))


def test_a_name_tells_a_file_that_is_cut(tmp_path):
    """The header is whole, and the size is another one."""
    whole = saved(tmp_path / "whole", 1.0)
    cut = tmp_path / "cut"
    cut.write_bytes(whole.read_bytes()[:-64])
    assert address(whole) != address(cut)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 8, b"\xff" * 4096])
def test_what_is_no_file_of_rebind_has_a_name_too(content, tmp_path):
    """A length that no file can have is no reason to read more than there is."""
    odd, other = tmp_path / "odd", tmp_path / "other"
    odd.write_bytes(content)
    other.write_bytes(content + b"\0")
    assert address(odd) != address(other)


def test_no_file_has_no_name(tmp_path):
    with pytest.raises(FileNotFoundError):
        address(tmp_path / "none")
