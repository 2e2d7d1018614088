"""Defects 10 to 24 of the system that rebind replaces; the oracle is direct construction on the new model."""

from __future__ import annotations

import copy
import time
import warnings

import pytest
import spec_material as material
import torch
from pydantic import ValidationError
from torch.optim import SGD, AdamW
from torch.optim import lr_scheduler as lrs

import rebind
from rebind import MissingParametersError, TorchEvaluator, bind, trace


def net(width=3, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))


def train(model, optimizer, scheduler=None, count=6):
    """Train as a user does, and give the learning rates on the way."""
    rates = []
    for step in range(count):
        optimizer.zero_grad()
        x = torch.full((4, 2), float(step + 1))
        (model(x) - 1).square().mean().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    return rates


def groups_of(model):
    return [{"params": list(model[0].parameters()), "lr": 0.05}, {"params": list(model[2].parameters())}]


def evaluator_of(optimizer, scheduler=None, model=None):
    return TorchEvaluator(material.train, optimizer, material.criterion, scheduler, model=model)


def assert_trains_as(evaluator, direct):
    """Bind to a new model and compare with what `direct` builds on an equal one, weights bit by bit."""
    mine, oracle = net(5, seed=7), net(5, seed=7)
    with bind(evaluator, mine) as binding:
        optimizer = binding.optimizers[0]
        scheduler = binding.lr_schedulers[0] if evaluator.lr_schedulers is not None else None
        built = direct(oracle)
        expected, expected_scheduler = built if isinstance(built, tuple) else (built, None)
        assert [len(group["params"]) for group in optimizer.param_groups] == [
            len(group["params"]) for group in expected.param_groups
        ]
        assert train(mine, optimizer, scheduler) == train(oracle, expected, expected_scheduler)
    assert all(map(torch.equal, mine.parameters(), oracle.parameters()))


def test_10_creating_an_evaluator_leaves_optimizer_and_list_alone():
    """The live groups, and the user's own, hold what they held."""
    model = net()
    groups = groups_of(model)
    optimizer = trace(SGD)(groups, lr=0.1)
    before = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]
    own = [{**group, "params": list(group["params"])} for group in groups]
    evaluator_of(optimizer, model=model)
    for group, old in zip([*optimizer.param_groups, *groups], [*before, *own], strict=True):
        assert group.keys() == old.keys()
        assert all(a is b for a, b in zip(group["params"], old["params"], strict=True))


def test_11_a_second_evaluator_of_one_grouped_optimizer_trains_as_the_first():
    """Creating one takes nothing away."""
    model = net()
    optimizer = trace(SGD)(groups_of(model), lr=0.1)
    first, second = evaluator_of(optimizer, model=model), evaluator_of(optimizer, model=model)
    assert first == second
    assert_trains_as(second, lambda m: SGD(groups_of(m), lr=0.1))


def test_12_the_learning_rate_is_the_one_at_the_beginning():
    """However far the schedulers have come."""
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    scheduler = trace(lrs.ExponentialLR)(optimizer, 0.5)
    train(model, optimizer, scheduler)

    def direct(m):
        built = SGD(m.parameters(), lr=0.1)
        return built, lrs.ExponentialLR(built, 0.5)

    assert_trains_as(evaluator_of(optimizer, scheduler), direct)


def test_13_named_parameters_are_parameters():
    """All of them, with their names."""
    optimizer = trace(SGD)(net().named_parameters(), lr=0.1)
    assert_trains_as(evaluator_of(optimizer), lambda m: SGD(m.named_parameters(), lr=0.1))


def test_14_a_name_that_the_new_model_lacks_is_an_error():
    """And never an optimizer without parameters."""
    model = net()
    evaluator = evaluator_of(trace(SGD)(model.parameters(), lr=0.1))
    with pytest.raises(MissingParametersError):
        bind(evaluator, torch.nn.Linear(2, 1))


def test_15_the_order_of_parameters_is_kept_so_that_state_can_be_loaded():
    """Also where it is not that of the model."""
    model = net()
    optimizer = trace(SGD)(list(model.parameters())[::-1], lr=0.1, momentum=0.9)
    train(model, optimizer)
    other = net()
    with bind(evaluator_of(optimizer, model=model), other) as binding:
        fresh = binding.optimizers[0]
        assert [id(p) for p in fresh.param_groups[0]["params"]] == [
            id(p) for p in list(other.parameters())[::-1]
        ]
        fresh.load_state_dict(optimizer.state_dict())
        for old, new in zip(list(model.parameters())[::-1], fresh.param_groups[0]["params"], strict=True):
            assert torch.equal(optimizer.state[old]["momentum_buffer"], fresh.state[new]["momentum_buffer"])


class Tied(torch.nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        if tied:
            self.second.weight = self.first.weight


def test_16_tied_weights_keep_all_their_names():
    """Where a new model unties them, both are optimized."""
    model = Tied()
    evaluator = evaluator_of(trace(SGD)(model.parameters(), lr=0.1))
    untied = Tied(tied=False)
    with bind(evaluator, untied) as binding:
        assert {id(p) for p in binding.optimizers[0].param_groups[0]["params"]} == {
            id(p) for p in untied.parameters()
        }


def test_17_ten_thousand_tensors_cost_a_small_multiple_of_the_optimizer_itself():
    """A hundred times, it was; the bound here leaves room for a busy machine."""
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1)) for _ in range(10_000)])

    def seconds(call):
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
        return best

    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    plain = seconds(lambda: SGD(model.parameters(), lr=0.1))
    assert seconds(lambda: evaluator_of(optimizer)) < 25 * plain


def test_18_groups_that_were_added_or_changed_later_count():
    """In the order in which it was done."""
    model = net()
    optimizer = trace(SGD)(model[0].parameters(), lr=0.1)
    optimizer.add_param_group({"params": list(model[2].parameters()), "lr": 0.01})
    optimizer.param_groups[0]["weight_decay"] = 0.1

    def direct(m):
        built = SGD(m[0].parameters(), lr=0.1)
        built.add_param_group({"params": list(m[2].parameters()), "lr": 0.01})
        built.param_groups[0]["weight_decay"] = 0.1
        return built

    assert_trains_as(evaluator_of(optimizer, model=model), direct)


def of_model(network, rate):
    return SGD(
        [{"params": list(network[2].parameters())}, {"params": list(network[0].parameters()), "lr": rate}],
        lr=0.1,
    )


def of_weights(weights):
    return AdamW(weights, lr=0.02)


def test_19_factories_and_first_arguments_of_any_name_are_fine():
    """A factory may take the model itself."""
    model = net()
    assert_trains_as(evaluator_of(trace(of_model)(model, 0.3), model=model), lambda m: of_model(m, 0.3))
    assert_trains_as(
        evaluator_of(trace(of_weights)(weights=model.parameters())), lambda m: of_weights(m.parameters())
    )


def test_20_the_state_of_an_optimizer_can_move_to_the_new_one():
    """Parameter by parameter, since the order is kept."""
    model = net()
    optimizer = trace(AdamW)(model.parameters(), lr=0.1)
    train(model, optimizer)
    other, oracle = net(), net()
    for target in (other, oracle):
        target.load_state_dict(model.state_dict())
    expected = AdamW(oracle.parameters(), lr=0.1)
    expected.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with bind(evaluator_of(optimizer), other) as binding:
        binding.optimizers[0].load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(other, binding.optimizers[0])
    train(oracle, expected)
    assert all(map(torch.equal, other.parameters(), oracle.parameters()))


@pytest.mark.parametrize("form", ["sequential", "chained"])
def test_21_schedulers_of_schedulers_are_rebuilt_exactly(form):
    """With the learning rates of direct construction at every step."""

    def build(optimizer, traced):
        of = trace if traced else lambda target: target
        parts = [of(lrs.ConstantLR)(optimizer, 0.5, 2), of(lrs.ExponentialLR)(optimizer, 0.7)]
        if form == "chained":
            return of(lrs.ChainedScheduler)(parts)
        return of(lrs.SequentialLR)(optimizer, parts, milestones=[2])

    def direct(m):
        built = SGD(m.parameters(), lr=0.1)
        return built, build(built, traced=False)

    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    assert_trains_as(evaluator_of(optimizer, build(optimizer, traced=True)), direct)


def test_22_a_scheduler_of_an_optimizer_that_was_not_passed_is_told_so():
    """At its place, in words."""
    with pytest.raises(ValidationError, match="not among `optimizers`") as caught:
        evaluator_of(trace(SGD)(net().parameters()), trace(lrs.StepLR)(trace(SGD)(net().parameters()), 2))
    assert caught.value.errors()[0]["loc"] == ("lr_schedulers", "args", 0)


def test_23_a_scheduler_that_resumes_is_rebuilt_exactly():
    """`last_epoch` counts, where the groups have the learning rate that it resumes from."""

    def groups(m):
        return [{"params": list(m.parameters()), "initial_lr": 0.1}]

    def direct(m):
        built = SGD(groups(m), lr=0.05)
        return built, lrs.StepLR(built, 4, gamma=0.5, last_epoch=2)

    model = net()
    optimizer = trace(SGD)(groups(model), lr=0.05)
    scheduler = trace(lrs.StepLR)(optimizer, 4, gamma=0.5, last_epoch=2)
    assert_trains_as(evaluator_of(optimizer, scheduler, model), direct)


def test_24_training_with_schedulers_warns_of_nothing():
    """Neither torch nor we override `step` behind a scheduler's back."""

    def training(model, optimizers, criterion, lr_schedulers, max_steps):
        train(model, optimizers, lr_schedulers, max_steps)

    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    evaluator = TorchEvaluator(
        training,
        optimizer,
        material.criterion,
        trace(lrs.StepLR)(optimizer, 2),
        evaluating_func=material.evaluate,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with rebind.bind(evaluator, net(6)) as binding:
            binding.train(max_steps=4)
