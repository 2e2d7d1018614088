"""What the page on NNI says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from nni_algorithms import ALGORITHMS
from nni_material import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "nni.md"


@pytest.mark.integrations
def test_the_pages_example_runs(tmp_path):
    """As it stands, in a process of its own."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "0.5" in done.stdout


def test_the_pages_table_has_a_line_for_each_algorithm_that_is_tested():
    """And a column for each kind of evaluator."""
    table = PAGE.read_text().partition("## What runs")[2].partition("Nothing of NNI")[0]
    lines = re.findall(r"^\| `(\w+)`(, folding)?", table, re.MULTILINE)
    assert ["".join(line) for line in lines] == list(ALGORITHMS)
    assert table.count("equal |") + table.count("see below |") == len(KINDS) * (len(ALGORITHMS) + 1)
