"""The main job: an evaluator of one model, written, and put onto another in a worker."""

import gc
import itertools
import weakref

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

import rebind
from rebind import LocalPool, SerialPool, TorchEvaluator, Trial, run_trials, trace

DATA = torch.linspace(-1, 1, 64 * 8).reshape(64, 8).sin()
LABELS = (DATA.sum(1) > 0).long()


def train(model, optimizers, criterion, lr_schedulers=None, max_steps=None):
    model.train()
    for _ in range(max_steps):
        optimizers.zero_grad()
        criterion(model(DATA), LABELS).backward()
        optimizers.step()
        if lr_schedulers is not None:
            lr_schedulers.step()


def accuracy(model):
    return (model(DATA).argmax(1) == LABELS).float().mean()


def network(width, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))


def sgd(model, tracing):
    return tracing(SGD)(model.parameters(), lr=0.1, momentum=0.9)


def adamw(model, tracing):
    return tracing(AdamW)(model.parameters(), lr=0.01, betas=(0.8, 0.95))


def cosine(optimizer, tracing):
    return tracing(CosineAnnealingLR)(optimizer, T_max=20)


def untraced(target):
    return target


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("pool", [SerialPool, LocalPool])
def test_weights_after_training_in_a_pool_are_those_of_the_users_own_code(pool):
    """20 steps in a worker and 20 steps of hand-written code here give the same bits."""
    cases = list(itertools.product((sgd, adamw), (None, cosine)))
    for optimizer_of, scheduler_of in cases:
        recorded = network(16, seed=0)
        optimizer = optimizer_of(recorded, trace)
        scheduler = scheduler_of and scheduler_of(optimizer, trace)
        evaluator = TorchEvaluator(train, optimizer, F.cross_entropy, scheduler, evaluating_func=accuracy)

        ours, own = network(12, seed=1), network(12, seed=1)
        trials = [Trial(model=ours, max_steps=20, name="one")]
        (result,) = run_trials(evaluator, trials, pool=pool(), state_dicts=True)

        optimizer = optimizer_of(own, untraced)
        train(own, optimizer, F.cross_entropy, scheduler_of and scheduler_of(optimizer, untraced), 20)
        score = accuracy(own)
        assert result.error is None, result.error
        assert result.state_dict.keys() == own.state_dict().keys()
        for name, weight in own.state_dict().items():
            assert torch.equal(result.state_dict[name], weight), (optimizer_of, scheduler_of, name)
        assert result.score == score.item()


def test_a_closure_a_lambda_and_a_function_ship_to_a_worker():
    """What a function captures travels with it."""
    offset = torch.tensor(0.25)

    def closure(model):
        return accuracy(model) + offset

    model = network(8, seed=0)
    for function in (closure, lambda model: 0.5, accuracy):
        evaluator = TorchEvaluator(train, sgd(model, trace), F.cross_entropy, evaluating_func=function)
        (result,) = run_trials(
            evaluator, [Trial(model=model, task=rebind.evaluate)], pool=LocalPool(workers=1)
        )
        assert result.error is None, result.error
        assert result.score == pytest.approx(float(function(model.train())))


def test_the_evaluator_of_ten_million_parameters_is_small_and_keeps_none_of_them():
    """It dumps to under 10 kB, and the model is freed while the evaluator lives."""
    model = nn.Sequential(*[nn.Linear(1000, 1000) for _ in range(10)])
    assert sum(parameter.numel() for parameter in model.parameters()) > 10_000_000
    optimizer = sgd(model, trace)
    scheduler = cosine(optimizer, trace)
    evaluator = TorchEvaluator(train, optimizer, F.cross_entropy, scheduler, DATA[:1], accuracy)
    assert len(rebind.dumps(evaluator, key=b"k" * 32)) < 10_000

    freed = weakref.ref(model)
    del model, optimizer, scheduler
    gc.collect()
    assert freed() is None
    assert len(evaluator.parameter_names()) == 20


def test_a_saved_evaluator_is_equal_and_binds_to_a_narrower_model(tmp_path):
    """The file gives back an equal evaluator, which trains what is left of a pruned model."""
    key = b"0123456789abcdef" * 2
    model = network(16, seed=0)
    evaluator = TorchEvaluator(
        train, adamw(model, trace), F.cross_entropy, evaluating_func=accuracy, model=model
    )
    rebind.save(evaluator, tmp_path / "evaluator.rebind", key=key)
    loaded = rebind.load(tmp_path / "evaluator.rebind", key=key)
    assert loaded == evaluator

    narrow = network(4, seed=2)
    before = {name: weight.clone() for name, weight in narrow.named_parameters()}
    with rebind.bind(loaded, narrow) as binding:
        binding.train(max_steps=3)
        score, info = binding.evaluate()
    assert 0 <= score <= 1
    assert info == {}
    assert binding.report.matched == tuple(before)
    assert all(not torch.equal(weight, before[name]) for name, weight in narrow.named_parameters())
