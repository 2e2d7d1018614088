"""What the pages say that an example printed is what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import DOCS, ROOT

SHOWN = re.compile(
    r"`examples/(\w+)\.py`(?:(?!`examples/|```).)*?\bit\sprinted\shere:\n\n```text\n(.*?)```", re.DOTALL
)
TOLD = {name: text for page in DOCS.glob("*.md") for name, text in SHOWN.findall(page.read_text())}

# Whose searches go on in worker processes: another run gives other figures, and other lines of them.
SEARCHES = {"optuna_search", "ray_tune_search"}
MARKS = {
    "optuna_search": pytest.mark.long,
    "pt2e_qat": pytest.mark.long,
    "ray_tune_search": pytest.mark.clusters,
}


def test_the_pages_show_what_five_examples_printed():
    """No block is missed by the expression above."""
    texts = "".join(page.read_text() for page in DOCS.glob("*.md"))
    assert len(TOLD) == len(re.findall(r"it\sprinted\shere:\n\n```", texts)) == 5


def words(line):
    """A line without its figures."""
    return re.sub(r"\d[\d,.]*%?", "#", line)


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in TOLD])
def test_an_example_prints_what_its_page_says(name, tmp_path):
    """The same lines; scores and sizes may differ a little on another machine, and freely in a search."""
    pytest.importorskip({"gradual_pruning": "torch_pruning", "optuna_search": "optuna"}.get(name, "torchao"))
    if name == "ray_tune_search":
        pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told, printed = TOLD[name].splitlines(), done.stdout.splitlines()
    if name in SEARCHES:
        assert {words(line) for line in told} == {words(line) for line in printed}
        return
    assert [words(line) for line in told] == [words(line) for line in printed]
    for shown, found in zip(told, printed, strict=True):
        pairs = zip(*(re.findall(r"\d[\d,.]*", line) for line in (shown, found)), strict=True)
        for one, other in pairs:
            first, second = (float(figure.replace(",", "")) for figure in (one, other))
            assert abs(first - second) <= 0.05 * max(1, first), (shown, found)
