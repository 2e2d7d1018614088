"""What the page on the file format shows is what lies in a file, and its bounds are those of the code."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import torch

import rebind
from rebind.serialization import format as rules

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import DOCS, fences

PAGE = (DOCS / "file-format.md").read_text()


def header_of(data):
    length = int.from_bytes(data[:8], "little")
    assert (8 + length) % rules.ALIGNMENT == 0
    return json.loads(data[8 : 8 + length])


def train(model, optimizers, criterion):
    """Never runs here."""


def evaluator(training_func):
    model = torch.nn.Linear(2, 1)
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    mse = torch.nn.functional.mse_loss
    return rebind.TorchEvaluator(training_func, optimizer, mse, dummy_input=torch.ones(4, 4))


def test_the_header_that_the_page_shows_has_the_names_of_a_real_one():
    """Of an evaluator with an example of 16 numbers: metadata, entries in order, their dtype and shape."""
    (shown,) = [block for kind, block in fences(PAGE) if kind == "text" and "__metadata__" in block]
    real = header_of(rebind.dumps(evaluator(lambda model, optimizers, criterion: None)))
    metadata = real.pop("__metadata__")
    assert re.findall(r'"(rebind\.\w+)":', shown) == list(metadata)
    entries = re.findall(r'^ "([\w.]+)": +(\{.*?\})', shown, re.MULTILINE)
    assert [name for name, _ in entries] == list(real)
    told = {name: json.loads(entry) for name, entry in entries}
    assert told["tensor.dummy_input.0"] == real["tensor.dummy_input.0"]
    assert {name: entry["dtype"] for name, entry in told.items()} == {
        name: entry["dtype"] for name, entry in real.items()
    }
    stops = [entry["data_offsets"] for entry in told.values()]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(stops))


def test_without_a_pickle_the_kind_stands_for_the_field():
    """As the page says of its names."""
    assert "where there is no pickle, the kind stands for FIELD" in PAGE
    assert "tensor.TorchEvaluator.0" in header_of(rebind.dumps(evaluator(train)))


def test_the_bounds_on_the_page_are_those_of_the_code():
    bounds = PAGE.partition("## Bounds")[2].partition("##")[0]
    for told in (
        f"| header | {rules.MAX_HEADER_BYTES >> 20} MiB;",
        f"| {rules.MAX_JSON_BYTES >> 20} MiB each, {rules.MAX_JSON_DEPTH} levels deep |",
        f"| file | {rules.MAX_FILE_BYTES >> 30} GiB,",
        f"| {rules.MAX_LISTED_TENSORS} are listed,",
    ):
        assert told in bounds
    assert f"This page describes format {rules.FORMAT}." in PAGE
