"""`binding.add_parameters`: new tensors train with those that are optimized, and leave again."""

from __future__ import annotations

import copy

import pytest
import torch
from binding_material import RECORDED, data, net, record
from torch import nn

from rebind import BindError, TorchEvaluator, bind, trace


def scaled_net():
    model = net()
    scale = nn.Parameter(torch.ones(6))
    model.fc1.register_parameter("scale", scale)
    model.fc1.register_forward_hook(lambda module, _, out: out * module.scale)
    return model, scale


KINDS = {
    "SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "AdamW": (torch.optim.AdamW, {}),
    "Adagrad": (torch.optim.Adagrad, {"initial_accumulator_value": 0.5}),
    "Adafactor": (torch.optim.Adafactor, {}),
    "LBFGS": (torch.optim.LBFGS, {"max_iter": 2}),
}


def fit(model, optimizers, criterion, lr_schedulers=None, max_steps=5):
    for x, y in data(max_steps):

        def closure(x=x, y=y):
            optimizers.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            return loss

        optimizers.step(closure)
        if lr_schedulers is not None:
            lr_schedulers.step()


@pytest.mark.parametrize("name", KINDS)
def test_what_joins_trains_as_if_it_had_been_there_from_the_start(name):
    """Weights and scale after 5 steps equal an optimizer that was built over all of them."""
    kind, options = KINDS[name]
    model, scale = scaled_net()
    plain = net()
    optimizer = trace(kind)(plain.parameters(), **options)
    scheduler = trace(torch.optim.lr_scheduler.StepLR)(optimizer, 2, 0.1)
    evaluator = TorchEvaluator(fit, optimizer, nn.functional.mse_loss, scheduler)
    with bind(evaluator, model) as binding:
        assert binding.report.new == ("fc1.scale",)
        binding.add_parameters({"fc1": [scale]})
        binding.train(max_steps=5)
    oracle, other = scaled_net()
    own = dict(oracle.named_parameters())
    by_hand = kind([*(own[n] for n in RECORDED), other], **options)
    fit(oracle, by_hand, nn.functional.mse_loss, torch.optim.lr_scheduler.StepLR(by_hand, 2, 0.1), 5)
    assert torch.equal(scale, other)
    assert not torch.equal(scale, torch.ones(6))
    assert torch.equal(model.fc1.weight, oracle.fc1.weight)


@pytest.mark.parametrize(
    ("name", "group"),
    [("fc1.weight", 0), ("fc1.bias", 1), ("fc1", 0), ("bn.bias", 1), ("", 0)],
)
def test_each_tensor_joins_the_group_that_is_named(name, group):
    """A parameter's own group, or that of the module's first parameter; the model itself is ""."""
    model = net(1)
    with bind(record(net(), "groups"), model) as binding:
        new = nn.Parameter(torch.ones(1))
        binding.add_parameters({name: [new]})
        groups = binding.optimizers[0].param_groups
        assert [any(p is new for p in g["params"]) for g in groups] == [group == 0, group == 1]


def test_root_parameters_have_a_group_too():
    """A parameter that stands on the model itself is named without a dot; its module is ""."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.temperature = nn.Parameter(torch.ones(1))

    model = Root()
    optimizer = trace(torch.optim.SGD)(
        [{"params": model.head.parameters()}, {"params": [model.temperature], "lr": 1.0}], lr=0.1
    )
    evaluator = TorchEvaluator(fit, optimizer, nn.functional.mse_loss, model=model)
    with bind(evaluator, model) as binding:
        scales = [nn.Parameter(torch.ones(1)) for _ in range(2)]
        binding.add_parameters({"temperature": scales[:1], "": scales[1:]})
        assert [
            p is s for p, s in zip(binding.optimizers[0].param_groups[1]["params"][1:], scales, strict=True)
        ]
        assert len(binding.optimizers[0].param_groups[1]["params"]) == 3


def test_nothing_joins_twice():
    """Not a tensor that is there already, nor one that is given under two names or again."""
    model = net(1)
    with bind(record(net()), model) as binding:
        new = nn.Parameter(torch.ones(1))
        first = binding.add_parameters({"fc1": [new, new, model.fc1.weight], "fc2": [new]})
        second = binding.add_parameters({"fc2": [new]})
        params = binding.optimizers[0].param_groups[0]["params"]
        assert sum(p is new for p in params) == 1
        assert len(params) == 7
        assert ([item.tensor for item in first.joined], second.joined) == ([new], ())
        second.revert()
        assert len(params) == 7


def test_what_joined_leaves_in_any_order_and_for_good():
    """By its handle, by its block, and when the binding is closed; state, names and gradients go too."""
    model = net(1)
    binding = bind(record(net(), "named"), model)
    (optimizer,) = binding.optimizers
    group = optimizer.param_groups[0]
    before = (list(map(id, group["params"])), list(group["param_names"]))
    new = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    handles = [binding.add_parameters({"fc1": [tensor]}) for tensor in new]
    assert len(set(group["param_names"])) == len(group["params"]) == 9
    for tensor in new:
        tensor.grad = torch.ones(2)
    optimizer.step()
    handles[1].revert()
    handles[1].revert()
    assert [any(p is t for p in group["params"]) for t in new] == [True, False, True]
    assert new[1] not in optimizer.state
    assert new[1].grad is None
    with handles[0]:
        pass
    assert not any(p is new[0] for p in group["params"])
    binding.close()
    assert (list(map(id, group["params"])), group["param_names"]) == before
    assert new[2] not in optimizer.state


@pytest.mark.parametrize(
    ("additions", "text"),
    [
        ({"fc9": []}, "no module or parameter 'fc9', did you mean"),
        ({"fc1": torch.ones(1)}, "needs a list of tensors"),
        ({"fc1": [1.0]}, "is a float, not a tensor"),
        ({"fc1": [torch.ones(1, requires_grad=True) * 2]}, "only leaf tensors"),
        ({"fc1": [torch.ones(1, dtype=torch.int64)]}, "has no gradient"),
        ({"act": [torch.ones(1)]}, "no parameter of the module 'act' is in an optimizer"),
        ({"fc3.weight": [torch.ones(1)]}, "the parameter 'fc3.weight' is in no optimizer"),
    ],
)
def test_additions_that_cannot_be_are_refused_as_a_whole(additions, text):
    """Nothing of a refused call joins, not even its good part."""
    model = net(1)
    model.act = nn.ReLU()
    model.fc3 = nn.Linear(1, 1)
    with bind(record(net()), model) as binding:
        with pytest.raises(BindError) as caught:
            binding.add_parameters({"fc2": [nn.Parameter(torch.ones(1))], **additions})
        assert text in str(caught.value)
        assert len(binding.optimizers[0].param_groups[0]["params"]) == 6


def test_optimizers_with_conditions_of_their_own_refuse_in_words():
    """Muon takes matrices only, and a running LBFGS takes nothing."""
    model = nn.Linear(3, 2, bias=False)
    muon = TorchEvaluator(fit, trace(torch.optim.Muon)(model.parameters()), nn.functional.mse_loss)
    with bind(muon, model) as binding, pytest.raises(BindError, match="Muon optimizes matrices only"):
        binding.add_parameters({"weight": [torch.ones(3)]})
    model = net()
    lbfgs = TorchEvaluator(fit, trace(torch.optim.LBFGS)(model.parameters()), nn.functional.mse_loss)
    with bind(lbfgs, model) as binding:
        binding.train(max_steps=1)
        with pytest.raises(BindError, match="add it before training"):
            binding.add_parameters({"fc1": [torch.ones(3)]})


@pytest.mark.parametrize("state", ["fresh", "carry"])
def test_what_joined_stays_after_surgery_unless_the_old_model_took_it_along(state):
    """A scale in the model that is bound again goes on training, one of another model's does not."""
    model, scale = scaled_net()
    binding = bind(record(net()), model)
    handle = binding.add_parameters({"fc1": [scale]})
    binding.train(max_steps=3)
    momentum = binding.optimizers[0].state[scale]["momentum_buffer"].clone()
    binding.rebind(model, state=state)
    carried = binding.optimizers[0].state.get(scale)
    assert (carried is None) if state == "fresh" else torch.equal(carried["momentum_buffer"], momentum)
    before = scale.detach().clone()
    binding.train(max_steps=3)
    assert not torch.equal(scale, before)
    other = copy.deepcopy(model)
    binding.rebind(other, state=state)
    assert handle.joined == ()
    assert len(binding.optimizers[0].param_groups[0]["params"]) == 6


def test_a_closed_binding_takes_no_parameters():
    """After `close` nothing joins."""
    binding = bind(record(net()), net(1))
    binding.close()
    with pytest.raises(BindError, match="closed"):
        binding.add_parameters({"fc1": [torch.ones(1)]})
