"""torch-pruning, torchao and Optuna on each kind of evaluator: the bits of a loop of the user's own."""

import sys
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
for library in ("torch_pruning", "torchao", "optuna"):
    pytest.importorskip(library)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of deprecated calls, when the libraries import their parts
    import gradual_pruning
    import optuna
    import optuna_search
    import pt2e_qat
    import torchao_qat
from agp_pruning import agp_pruning  # noqa: E402 - after what may be missing
from apoz_pruning import apoz_pruning  # noqa: E402
from distillation import distillation  # noqa: E402
from lottery_ticket import lottery_ticket  # noqa: E402
from movement_pruning import movement_pruning  # noqa: E402
from network_slimming import network_slimming  # noqa: E402
from nni_material import KINDS as OURS_AND_LIGHTNINGS  # noqa: E402
from nni_material import LitHolder, Net  # noqa: E402
from search_by_hand_of_kinds import finetuned  # noqa: E402
from sensitivity_pruning import sensitivity_pruning  # noqa: E402
from taylor_pruning import taylor_pruning  # noqa: E402
from trainer_kind import trainer_evaluator  # noqa: E402

import rebind  # noqa: E402

KINDS = {**OURS_AND_LIGHTNINGS, "TransformersEvaluator": (Net, trainer_evaluator)}
OTHERS = [kind for kind in KINDS if kind != "TorchEvaluator"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """A Trainer makes its output folder where the test runs."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pruning_in_rounds(make):
    """Taylor importance from `collect`, torch-pruning, sliced state."""
    model, evaluator = make()
    with rebind.bind(evaluator, model) as binding:
        gradual_pruning.gradual_pruning(binding, 0.5, rounds=2, steps=5)
        score, _ = binding.evaluate()
    assert model.conv1.out_channels == 4
    return score, model.state_dict()


def learned_ranges(make):
    """torchao's fake quantizers, scales that join, and quantized layers."""
    model, evaluator = make()
    with rebind.bind(evaluator, model) as binding:
        binding.train(max_steps=20)
        fake = torchao_qat.learned_ranges(binding)
        score, _ = binding.evaluate()
    state = {}
    for name, value in model.state_dict().items():
        if hasattr(value, "qdata"):
            state |= {f"{name}.qdata": value.qdata, f"{name}.scale": value.scale}
        else:
            state[name] = value
    assert len(state) > len(model.state_dict())
    return (fake, score), state


def late_quantization(make):
    """Fake quantizers that are switched on at the tenth step, by a listener."""
    model, evaluator = make()
    torchao_qat.prepare(model)

    def switch(*, on):
        for layer in (model.hidden, model.fc):
            layer.weight_fake_quantizer.enabled = on

    switch(on=False)
    with rebind.bind(evaluator, model) as binding:
        binding.add_parameters(torchao_qat.scales(model))
        binding.on_event(lambda event: event.step == 10 and switch(on=True))
        binding.train(max_steps=20)
        score, _ = binding.evaluate()
    return score, model.state_dict()


def exported(make):
    """A graph with fake quantizers in the place of the network, then one with integers."""
    model, evaluator = make()
    with rebind.bind(evaluator, model) as binding:
        binding.train(max_steps=20)
        graph = pt2e_qat.prepared(getattr(model, "net", model))
        if isinstance(model, LitHolder):
            model.net = graph
        binding.rebind(model if isinstance(model, LitHolder) else graph, state="carry")
        assert len(binding.report.carried) == len(list(graph.parameters()))
        binding.train(max_steps=15)
        score, _ = binding.evaluate()
    state = {name: value.clone() for name, value in graph.state_dict().items()}
    quantized = pt2e_qat.converted(graph)
    assert any("quantized_decomposed" in str(node.target) for node in quantized.graph.nodes)
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    return score, {**state, "outputs of the graph with integers": quantized(images)}


def search(make):
    """A study whose trials report through events, and stop."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna_search.sampler(0), pruner=optuna_search.pruner()
    )

    def objective(trial):
        model, evaluator = make()
        with rebind.bind(evaluator, model) as binding:
            return optuna_search.objective(binding, trial)

    study.optimize(objective, n_trials=8)
    told = [(t.params, t.state, t.value, t.intermediate_values, t.user_attrs) for t in study.trials]
    assert len({trial.state for trial in study.trials}) == 2, "some are stopped, and some are not"
    return told, {}


def distilled(binding):
    """A student of a teacher that was not trained, which tells as much of the bits."""
    distillation(binding, Net(16, seed=5).eval())


def of(algorithm):
    """An algorithm of the examples, on a model that was trained a little."""

    def job(make):
        model, evaluator = make()
        with rebind.bind(evaluator, model) as binding:
            binding.train(max_steps=20)
            algorithm(binding)
            score, _ = binding.evaluate()
        return score, model.state_dict()

    job.__name__ = algorithm.__name__
    return job


ALGORITHMS = [
    taylor_pruning,
    apoz_pruning,
    agp_pruning,
    network_slimming,
    lottery_ticket,
    sensitivity_pruning,
    movement_pruning,
    distilled,
]
# Exporting takes long.
LONG = [pytest.mark.long, pytest.mark.timeout(900)]
JOBS = [
    pruning_in_rounds,
    learned_ranges,
    late_quantization,
    pytest.param(exported, marks=LONG),
    search,
    *map(of, ALGORITHMS),
]


@cache
def done(job, kind):
    net, evaluator_of = KINDS[kind]
    if job is exported and net is not Net:  # a graph has no training_step: the module around it has
        net = LitHolder

    def make():
        model = net()
        return model, evaluator_of(model)

    torch.manual_seed(1)
    return job(make)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
@pytest.mark.parametrize("kind", OTHERS)
def test_a_kind_of_evaluator_gives_the_bits_of_the_users_own_loop(job, kind):
    """Scores and all tensors of the state are equal."""
    (score, state), (wanted, other) = done(job, kind), done(job, "TorchEvaluator")
    assert score == wanted
    assert state.keys() == other.keys()
    assert [name for name, value in state.items() if not torch.equal(value, other[name])] == []


@pytest.mark.long
@pytest.mark.parametrize("kind", OTHERS)
def test_trials_in_workers_end_early_where_the_study_says_so(kind, tmp_path):
    """Each did what a loop by hand does with its sparsities, up to the step where it was stopped."""
    net, evaluator_of = KINDS[kind]
    model = net()
    with rebind.LocalPool(workers=2) as pool:
        study = optuna_search.search_in_workers(evaluator_of(model), model, 14, tmp_path / "journal", pool)
    assert len(study.trials) == 14
    for trial in study.trials:
        told, attributes = trial.intermediate_values, trial.user_attrs
        values, right, left = finetuned(trial.params, attributes["steps"])
        assert told == values
        assert (attributes["accuracy"], attributes["weights"]) == (right, left)
    assert len({trial.state for trial in study.trials}) == 2, "some are stopped, and some are not"
