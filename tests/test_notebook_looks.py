"""What a notebook shows of results and reports: whole, escaped, and without starting anything."""

from __future__ import annotations

from functools import partial
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import rebind


class Cells(HTMLParser):
    """The texts of a table's rows, as a browser would show them."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.tags, self._open = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self._open = tag in ("td", "th")

    def handle_endtag(self, tag):
        self._open = False

    def handle_data(self, data):
        if self._open:
            self.rows[-1][-1] += data


def train(model, optimizers, criterion):
    """Never runs here."""


def evaluator_for(model):
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    return rebind.TorchEvaluator(train, optimizer, nn.functional.mse_loss, model=model)


def task(binding, width):
    if width == 2:
        raise ValueError("<script>alert(1)</script>")
    return width / 3, {"<b>width": width}


def trials():
    tasks = {width: partial(task, width=width) for width in (1, 2, 3)}
    return [rebind.Trial(model=nn.Linear(1, 1), name=f"<i>{n}", task=tasks[n]) for n in tasks]


def test_results_are_a_table_in_the_order_given():
    """A row for each trial; names, columns and errors are text, whatever is in them."""
    model = nn.Linear(1, 1)
    results = rebind.run_trials(evaluator_for(model), trials(), rebind.SerialPool(), progress=False)
    assert Cells(results._repr_html_()).rows == []
    assert not results.finished  # to look at it starts nothing
    page = Cells(results.wait()._repr_html_())
    assert set(page.tags) <= {"div", "strong", "table", "thead", "tbody", "tr", "th", "td", "p"}
    head, first, second, third = page.rows
    assert head[:3] == ["name", "score", "<b>width"]
    assert first[:3] == ["<i>1", "0.333333", "1"]
    assert second[0] == "<i>2"
    assert "alert(1)" in second[-1]
    assert third[:3] == ["<i>3", "1", "3"]


def test_numbers_are_set_to_the_right_and_texts_to_the_left():
    """A notebook's own style would set both to the right; an error is told in words."""
    from rebind.evaluator_schema.display import html_table

    rows = [{"name": "a", "n": 3, "score": 0.5}, {"name": "b", "n": None, "error": ValueError("odd")}]
    page = html_table("some", rows)
    assert '<th style="text-align: left">name</th>' in page
    for cell in ("3", "0.5"):
        assert f'<td style="text-align: right">{cell}</td>' in page
    assert '<td style="text-align: left">ValueError: odd</td>' in page


def test_a_result_is_one_row():
    result = rebind.TrialResult(name="wide & low", score=0.25)
    head, row = Cells(result._repr_html_()).rows
    assert dict(zip(head, row, strict=True))["name"] == "wide & low"


def test_long_tables_say_what_they_leave_out():
    from rebind.evaluator_schema.display import html_table

    page = html_table("many", [{"n": n} for n in range(100)])
    assert len(Cells(page).rows) == 61
    assert "and 40 more" in page


@pytest.mark.parametrize("frozen", [False, True])
def test_a_report_lists_what_is_not_as_it_was(frozen):
    """Renamed parameters with their new names, frozen ones as such; what matched is a number."""
    recorded = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    evaluator = evaluator_for(recorded)
    model = nn.Sequential()
    model.add_module("first", nn.Linear(2, 2))
    model.add_module("1", nn.Linear(2, 1))
    model[1].bias.requires_grad_(not frozen)
    renamed = {"0.weight": "first.weight", "0.bias": "first.bias"}
    with rebind.bind(evaluator, model, rename=renamed) as binding:
        page = binding.report._repr_html_()
    assert "4 parameters matched" in page
    rows = Cells(page).rows
    assert ["0.weight", "first.weight"] in [row[:2] for row in rows]
    assert any(row[0] == "1.bias" and row[-1] == "frozen" for row in rows) == frozen
