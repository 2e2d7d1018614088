"""The pruning sweep on digits, by Lightning, in worker processes."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import lightning_sweep


def test_finetuning_in_workers_brings_pruned_digit_classifiers_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense, results = lightning_sweep.sweep()
    assert dense > 0.96
    assert {name: result.error for name, result in results.items()} == {
        "25%": None, "50%": None, "75%": None,
    }  # fmt: skip
    sizes = [results[name].info["parameters"] for name in ("25%", "50%", "75%")]
    assert sizes == sorted(sizes, reverse=True)
    for result in results.values():
        assert result.score > result.info["after pruning"]
        assert result.score > dense - 0.05
    assert list(tmp_path.iterdir()) == []
