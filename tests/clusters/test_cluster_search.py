"""Ray Tune on bindings, on a real Ray: each trial is that of a loop by hand, and ends where Tune says so."""

import sys
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [
    str(ROOT / "examples"),
    str(ROOT / "tests" / "examples"),
    str(ROOT / "tests" / "integrations"),
]


@pytest.fixture(scope="module")
def searched(ray_cluster, tmp_path_factory):
    """What the search of the example gives, and the model that it began with."""
    pytest.importorskip("optuna")
    pytest.importorskip("pyarrow")
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Tune's own, about its next version
        import ray_tune_search as example

        evaluator, dense, _ = example.trained()
        return example.search(evaluator, dense, 6, tmp_path_factory.mktemp("tune")), dense


def test_each_trial_of_ray_tune_is_that_of_a_loop_by_hand(searched):
    """Value, accuracy and size where it ended are equal to the bit."""
    from search_by_hand import STEPS, by_hand

    results, dense = searched
    assert results.num_errors == 0
    assert len(results) == 6
    for result in results:
        values = {}
        config, metrics = result.config, result.metrics

        def rung(step, value, values=values, metrics=metrics):
            values[step] = value
            return step == metrics["steps"]

        left, right = by_hand(dense, config, config["seed"], rung)
        assert max(values) == metrics["steps"]
        assert metrics["value"] == values[max(values)]
        assert (metrics["accuracy"], metrics["weights"]) == (right, left)
    steps = {result.metrics["steps"] for result in results}
    assert max(steps) == STEPS > min(steps), "some are stopped early, and some are not"


@pytest.mark.parametrize(
    "kind", ["LightningEvaluator", "LightningEvaluator, model=", "TransformersEvaluator"]
)
def test_each_trial_with_another_kind_of_evaluator_is_that_of_a_loop_by_hand(kind, ray_cluster, tmp_path):
    """Likewise."""
    pytest.importorskip("optuna")
    pytest.importorskip("pyarrow")
    torch.set_num_threads(1)
    from nni_material import KINDS
    from search_by_hand_of_kinds import STEPS, finetuned

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray_tune_search as example

        net, evaluator_of = KINDS[kind]
        model = net()
        results = example.search(evaluator_of(model), model, 6, tmp_path)
    assert results.num_errors == 0
    assert len(results) == 6
    for result in results:
        metrics = result.metrics
        values, right, left = finetuned(result.config, metrics["steps"])
        assert metrics["value"] == values[metrics["steps"]]
        assert (metrics["accuracy"], metrics["weights"]) == (right, left)
    steps = {result.metrics["steps"] for result in results}
    assert max(steps) == STEPS > min(steps), "some are stopped early, and some are not"


def test_a_trial_that_ray_tune_stops_closes_its_binding(ray_cluster, tmp_path):
    """The exit comes out of the training, and the process goes on without a hook on the model."""
    pytest.importorskip("pyarrow")
    from digits import SmallCNN, make_evaluator

    import rebind

    def stopped(config, folder):
        from ray import tune

        model = SmallCNN()
        binding = rebind.bind(make_evaluator(model), model)
        binding.on_event(lambda event: event.kind == "step" and tune.report({"steps": event.step}))
        try:
            with binding:
                binding.train()
        finally:
            hooks = sum(len(module._forward_pre_hooks) for module in model.modules())
            told = f"{binding.steps} steps, {binding!r}, {hooks} hooks"
            (folder / f"end of {config['number']}").write_text(told)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray import tune

        # The second one begins in the same process, once the first one has ended there.
        options = tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1)
        run = tune.RunConfig(stop={"steps": 3}, storage_path=str(tmp_path), name="stopped", verbose=0)
        trainable = tune.with_parameters(stopped, folder=tmp_path)
        space = {"number": tune.grid_search([1, 2])}
        tune.Tuner(trainable, param_space=space, run_config=run, tune_config=options).fit()
    told = (tmp_path / "end of 1").read_text()
    assert told == "3 steps, <Binding of TorchEvaluator to SmallCNN (closed)>, 0 hooks"


def test_the_pages_example_with_ray_tune_runs(tmp_path):
    """As it stands, in a process of its own."""
    pytest.importorskip("pyarrow")
    from pages import run_page

    assert float(run_page("searches.md", tmp_path, lambda block: "optuna" not in block).split()[-1]) > 0.9
