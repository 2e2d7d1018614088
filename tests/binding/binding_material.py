"""A small model, its evaluators, and the oracle: construction on the new model by hand."""

from __future__ import annotations

import copy
import gc

import torch
from torch import nn

from rebind import TorchEvaluator, bind, dumps, loads, trace


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 6)
        self.bn = nn.BatchNorm1d(6)
        self.fc2 = nn.Linear(6, 2)

    def forward(self, x):
        return self.fc2(self.bn(self.fc1(x)).relu())


RECORDED = ("fc1.weight", "fc1.bias", "bn.weight", "bn.bias", "fc2.weight", "fc2.bias")


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def data(steps=10):
    generator = torch.Generator().manual_seed(7)
    return [
        (torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)) for _ in range(steps)
    ]


def run(model, optimizers, schedulers, criterion, steps):
    for x, y in data(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        criterion(model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def train(model, optimizers, criterion, lr_schedulers=None, max_steps=None):
    run(
        model,
        optimizers if isinstance(optimizers, list) else [optimizers],
        [] if lr_schedulers is None else [lr_schedulers],
        criterion,
        max_steps,
    )


OPTIONS = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}


def is_bias(name):
    return name.endswith("bias")


def record(model, style="parameters", names=RECORDED):
    """An evaluator of SGD with a schedule, over some parameters of a model."""
    own = dict(model.named_parameters())
    if style == "parameters":
        groups = model.parameters()
    elif style == "named":
        groups = model.named_parameters()
    else:
        groups = [
            {"params": [own[name] for name in names if not is_bias(name)]},
            {"params": [own[name] for name in names if is_bias(name)], "weight_decay": 0.0},
        ]
    optimizer = trace(torch.optim.SGD)(groups, **OPTIONS)
    scheduler = trace(torch.optim.lr_scheduler.StepLR)(optimizer, 3, 0.5)
    return TorchEvaluator(train, optimizer, nn.functional.mse_loss, scheduler, model=model)


def by_hand(model, expected, style="parameters"):
    """What the user would write for a model in which the recorded parameters are called `expected`."""
    own = dict(model.named_parameters())
    flat = [name for names in expected.values() for name in names]
    if style == "groups":
        groups = [
            {"params": [own[n] for old in RECORDED if not is_bias(old) for n in expected[old]]},
            {
                "params": [own[n] for old in RECORDED if is_bias(old) for n in expected[old]],
                "weight_decay": 0.0,
            },
        ]
    else:
        pairs = [(name, parameter) for name, parameter in own.items() if name in flat]
        groups = pairs if style == "named" else [parameter for _, parameter in pairs]
    optimizer = torch.optim.SGD(groups, **OPTIONS)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)


def shipped(evaluator):
    """The evaluator as another process would have it: names, and no living parameter."""
    return loads(dumps(evaluator), trusted=True)


def tensors(model):
    return {
        **{name: parameter.detach() for name, parameter in model.named_parameters()},
        **dict(model.named_buffers()),
    }


def assert_equal_models(first, second):
    ours, theirs = tensors(first), tensors(second)
    assert list(ours) == list(theirs)
    differing = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
    assert differing == []


def assert_equal_groups(ours, theirs, our_model, their_model):
    """Equal groups: the same options, and the same parameters by name in the same order."""
    names = [
        {id(parameter): name for name, parameter in model.named_parameters()}
        for model in (our_model, their_model)
    ]
    assert len(ours.param_groups) == len(theirs.param_groups)
    for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert [names[0][id(p)] for p in group["params"]] == [names[1][id(p)] for p in other["params"]]
        assert {k: v for k, v in group.items() if k != "params"} == {
            k: v for k, v in other.items() if k != "params"
        }


def transformed(transform):
    """The transform on a fresh model; transforms that draw numbers draw the same ones each time."""
    model = net()
    torch.manual_seed(1)
    return transform(model)


def assert_binds_like_by_hand(transform, expected, *, style, alive, rename=None, make=transformed):
    """Bind an evaluator of the original model to the transformed one; compare 10 steps with the oracle."""
    original = net()
    evaluator = record(original, style)
    if alive:
        torch.manual_seed(1)
        model = transform(original)
    else:
        evaluator = shipped(evaluator)
        del original
        gc.collect()
        model = make(transform)
    oracle = make(transform)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    before = copy.deepcopy(tensors(model))
    optimizer, scheduler = by_hand(oracle, expected, style)
    with bind(evaluator, model, rename=rename) as binding:
        assert_equal_groups(binding.optimizers[0], optimizer, model, oracle)
        assert binding.report.missing == ()
        flat = {name for names in expected.values() for name in names}
        assert set(binding.report.matched) == flat
        assert set(binding.report.new) == set(dict(model.named_parameters())) - flat
        binding.train(max_steps=10)
    run(oracle, [optimizer], [scheduler], nn.functional.mse_loss, 10)
    assert_equal_models(model, oracle)
    after = tensors(model)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == flags[name]
        if name not in flat or not flags[name]:
            assert torch.equal(after[name], before[name]), f"{name} is not optimized and has changed"
