"""The examples of the documentation's pages run as they stand."""

import pytest
from pages import run_page


def test_the_search_with_optuna_finds_a_sparse_model_that_is_accurate(tmp_path):
    """Without the part for Ray, which needs a cluster."""
    pytest.importorskip("optuna")
    printed = run_page("search.md", tmp_path, lambda block: "ray" not in block)
    assert float(printed.split()[0]) > 0.9


def test_the_network_of_two_bit_weights_is_accurate(tmp_path):
    pytest.importorskip("torchao")
    assert float(run_page("torchao.md", tmp_path).split()[-1]) > 0.9


def test_the_network_with_a_fourth_of_its_channels_is_accurate(tmp_path):
    pytest.importorskip("torch_pruning")
    channels, score = run_page("torch-pruning.md", tmp_path).split()[-2:]
    assert int(channels) == 16
    assert float(score) > 0.9
