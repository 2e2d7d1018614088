"""The examples of the documentation's pages run as they stand."""

import re

import pytest
from pages import DOCS, run_page


def test_the_search_with_optuna_finds_a_sparse_model_that_is_accurate(tmp_path):
    """Without the part for Ray, which needs a cluster."""
    pytest.importorskip("optuna")
    printed = run_page("searches.md", tmp_path, lambda block: "ray" not in block)
    assert float(printed.split()[0]) > 0.9


def test_the_network_of_two_bit_weights_is_accurate(tmp_path):
    pytest.importorskip("torchao")
    assert float(run_page("torchao.md", tmp_path).split()[-1]) > 0.9


def test_the_network_with_a_fourth_of_its_channels_is_accurate(tmp_path):
    pytest.importorskip("torch_pruning")
    channels, score = run_page("torch-pruning.md", tmp_path).split()[-2:]
    assert int(channels) == 16
    assert float(score) > 0.9


def test_the_trainer_on_a_smaller_model_is_accurate(tmp_path):
    """With what the page says of new parameters, patches and stopping."""
    pytest.importorskip("transformers")
    printed = run_page("transformers.md", tmp_path)  # transformers prints what it logs as well
    assert float(re.search(r"^accuracy (\S+)$", printed, re.MULTILINE)[1]) > 0.9


def table():
    """The rows of the page on what was driven, each a list of cells."""
    text = (DOCS / "integrations.md").read_text()
    return [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| ")][2:]


def test_each_cell_of_the_table_names_a_command_that_there_is_or_says_why_there_is_none():
    makefile = (DOCS.parent / "Makefile").read_text()
    for software, algorithm, *cells in table():
        assert len(cells) == 4, (software, algorithm)
        for cell in cells:
            command = re.fullmatch("`make ([a-z-]+)`", cell)
            assert cell.startswith("none: ") if command is None else f"\n{command[1]}:" in makefile


def test_the_examples_that_the_table_names_are_run_by_a_test():
    """Each file is there, and some test of that folder imports it."""
    tests = "".join(path.read_text() for path in (DOCS.parent / "tests").rglob("test_*.py"))
    named = [name for _, algorithm, *_ in table() for name in re.findall(r"`(\w+)\.py`", algorithm)]
    assert len(named) > 10
    for name in named:
        assert (DOCS.parent / "examples" / f"{name}.py").exists()
        assert re.search(rf"import {name}\b|from {name} import", tests), name


def test_the_tables_rows_for_nni_are_those_of_its_own_page():
    own = (DOCS / "nni.md").read_text().partition("## What runs")[2].partition("Nothing of NNI")[0]
    algorithms = [row.split("|")[1].strip() for row in own.splitlines() if row.startswith("| `")]
    assert [algorithm for software, algorithm, *_ in table() if software == "NNI 3.0"] == algorithms
