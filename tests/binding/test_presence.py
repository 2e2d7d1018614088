"""A training function that replaces the parameters that it is to train."""

from __future__ import annotations

import pytest
import torch
from binding_material import net, record
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from rebind import TorchEvaluator, TrainingError, bind, trace

X, Y = torch.ones(8, 4), torch.zeros(8, 2)


def evaluator_of(surgery):
    """Of a training function that operates on the model before it trains it."""

    def train(model, optimizers, criterion, max_steps=None):
        surgery(model)
        for _ in range(max_steps):
            optimizers.zero_grad()
            criterion(model(X), Y).backward()
            optimizers.step()

    model = nn.Linear(4, 2, bias=False)
    optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    return TorchEvaluator(train, optimizer, nn.functional.mse_loss)


def replace(model):
    model.weight = nn.Parameter(model.weight.detach().clone())


@pytest.mark.parametrize("surgery", [replace, parametrizations.weight_norm])
def test_an_optimizer_that_would_train_nothing_of_the_model_is_refused(surgery):
    """Without rebind, its steps change nothing, in silence."""
    model = nn.Linear(4, 2, bias=False)
    own = torch.optim.SGD(model.parameters(), lr=0.1)
    surgery(model)
    before = [p.detach().clone() for p in model.parameters()]
    nn.functional.mse_loss(model(X), Y).backward()
    own.step()
    assert all(map(torch.equal, before, model.parameters()))

    with bind(evaluator_of(surgery), nn.Linear(4, 2, bias=False)) as binding:
        with pytest.raises(TrainingError, match=r"replaced all 1 parameters .* this SGD .* bind what it has"):
            binding.train(max_steps=2)
        assert binding.steps == 0


@pytest.mark.parametrize(
    "surgery",
    [
        lambda _: None,
        lambda model: parametrize.register_parametrization(model, "weight", nn.Identity()),
        lambda model: model.double().float(),
    ],
    ids=["nothing", "parametrize", "dtypes"],
)
def test_a_parameter_that_stays_is_trained(surgery, caplog):
    """By the steps of a plain loop."""
    model = nn.Linear(4, 2, bias=False)
    expected = model.weight.detach().clone().requires_grad_()
    with bind(evaluator_of(surgery), model) as binding:
        binding.train(max_steps=1)
    nn.functional.mse_loss(X @ expected.T, Y).backward()
    torch.testing.assert_close(model.weight, expected.detach() - 0.1 * expected.grad)
    assert caplog.text == ""


def test_a_part_that_was_replaced_is_told_of(caplog):
    """The others train."""
    original = record(net())

    def train(model, optimizers, criterion, lr_schedulers=None, max_steps=None):
        model.fc1.weight = nn.Parameter(model.fc1.weight.detach().clone())
        original.training_func(model, optimizers, criterion, lr_schedulers, max_steps)

    recorded = net()
    optimizer = trace(torch.optim.SGD)(recorded.parameters(), lr=0.1)
    scheduler = trace(torch.optim.lr_scheduler.StepLR)(optimizer, 3)
    evaluator = TorchEvaluator(train, optimizer, nn.functional.mse_loss, scheduler, model=recorded)
    model = net(1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with bind(evaluator, model) as binding:
        binding.train(max_steps=2)
    assert caplog.text.count("replaced 1 of the 6 parameters") == 1
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(before) - {"fc1.weight"}


def evaluator_with(surgery, after=lambda model, optimizer: None):
    """Of a training function that operates on model and optimizer, and does something after each step."""

    def train(model, optimizers, criterion, max_steps=None):
        surgery(model, optimizers.param_groups[0])
        for _ in range(max_steps):
            optimizers.zero_grad()
            criterion(model(X), Y).backward()
            optimizers.step()
            after(model, optimizers.param_groups[0])

    recorded = nn.Linear(4, 2, bias=False)
    optimizer = trace(torch.optim.SGD)(recorded.parameters(), lr=0.1)
    return TorchEvaluator(train, optimizer, nn.functional.mse_loss)


@pytest.mark.parametrize(
    "left",
    [
        lambda group: [],
        lambda group: [nn.Parameter(torch.zeros(1))],
        lambda group: [p.detach().clone().requires_grad_() for p in group["params"]],
    ],
    ids=["nothing", "another one", "copies"],
)
def test_other_parameters_in_the_groups_do_not_make_up_for_those_of_the_model(left):
    """Its steps would change nothing of the model either."""

    def surgery(model, group):
        replace(model)
        group["params"] = left(group)

    with bind(evaluator_with(surgery), nn.Linear(4, 2, bias=False)) as binding:
        with pytest.raises(TrainingError, match="replaced all 1 parameters"):
            binding.train(max_steps=2)


def test_a_function_that_puts_its_optimizer_over_trains(caplog):
    """The new parameters are the model's, and in the groups."""

    def surgery(model, group):
        replace(model)
        group["params"] = list(model.parameters())

    model = nn.Linear(4, 2, bias=False)
    before = model.weight.detach().clone()
    with bind(evaluator_with(surgery), model) as binding:
        binding.train(max_steps=2)
    assert not torch.equal(model.weight, before)
    assert caplog.text == ""


def test_an_optimizer_over_master_copies_trains(caplog):
    """The model keeps its parameters, and gets the values of the copies after each step."""

    def surgery(model, group):
        group["params"] = [model.weight.detach().clone().requires_grad_()]
        model.weight.register_hook(lambda gradient: setattr(group["params"][0], "grad", gradient))

    def after(model, group):
        model.weight.data.copy_(group["params"][0])

    model = nn.Linear(4, 2, bias=False)
    before = model.weight.detach().clone()
    with bind(evaluator_with(surgery, after), model) as binding:
        binding.train(max_steps=2)
    assert not torch.equal(model.weight, before)
    assert caplog.text == ""
