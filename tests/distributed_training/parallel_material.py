"""What a user has who trains in two processes: a model, data of each process's own, training functions."""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import rebind

KEPT = (0, 2, 5)  # of six channels
# Which channels of each parameter are left, as `Binding.rebind(kept=...)` takes it.
KEPT_OF = {
    "fc1.weight": {0: KEPT},
    "fc1.bias": {0: KEPT},
    "bn.weight": {0: KEPT},
    "bn.bias": {0: KEPT},
    "fc2.weight": {1: KEPT},
}


class Net(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.fc1 = nn.Linear(4, width)
        self.bn = nn.BatchNorm1d(width)
        self.fc2 = nn.Linear(width, 2)

    def forward(self, x):
        return self.fc2(self.bn(self.fc1(x)).relu())


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def whole(tensor):
    """A tensor with the parts of all processes."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def sliced(name, tensor, kept=KEPT_OF):
    for dimension, indices in kept.get(name, {}).items():
        tensor = tensor.index_select(dimension, torch.tensor(indices))
    return tensor


def pruned(model):
    """A model with half of the channels, and the weights of those that are left."""
    smaller = Net(len(KEPT))
    bn = dict.fromkeys(("bn.running_mean", "bn.running_var"), KEPT_OF["bn.bias"])
    state = {name: whole(value) for name, value in model.state_dict().items()}
    smaller.load_state_dict({name: sliced(name, value, {**KEPT_OF, **bn}) for name, value in state.items()})
    return smaller


def rows(steps):
    """The batches of this process; the other one has others."""
    generator = torch.Generator().manual_seed(7 + dist.get_rank())
    return [
        (torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)) for _ in range(steps)
    ]


def loop(model, optimizers, criterion, lr_schedulers, steps, *, before=None, after=None):
    """A training loop; `before` and `after` are what a user writes into it around a step."""
    model.train()
    for x, y in rows(steps):
        optimizers.zero_grad()
        criterion(model(x), y).backward()
        if before is not None:
            before()
        optimizers.step()
        if after is not None:
            after()
        lr_schedulers.step()


def train(model, optimizers, criterion, lr_schedulers=None, max_steps=None):
    """For a model that is parallel by itself."""
    loop(model, optimizers, criterion, lr_schedulers, max_steps)


def train_data_parallel(model, optimizers, criterion, lr_schedulers=None, max_steps=None):
    """Makes the model data parallel, for as long as it trains."""
    loop(DistributedDataParallel(model), optimizers, criterion, lr_schedulers, max_steps)


def train_data_parallel_for_ever(model, optimizers, criterion, lr_schedulers=None):
    """Does not count."""
    train_data_parallel(model, optimizers, criterion, lr_schedulers, 10_000)


def train_and_shard(model, optimizers, criterion, lr_schedulers=None, max_steps=None):
    """Shards too late: the optimizers that it was given have the parameters from before."""
    loop(sharded(model), optimizers, criterion, lr_schedulers, max_steps)


def train_on_shards(model, optimizers, criterion, lr_schedulers=None, max_steps=None):
    """Shards in time, and lets the optimizer go over to the shards."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        names = {parameter: name for name, parameter in model.named_parameters()}
        groups = [[names[parameter] for parameter in group["params"]] for group in optimizers.param_groups]
        sharded(model)
        for group, own in zip(optimizers.param_groups, groups, strict=True):
            group["params"] = [model.get_parameter(name) for name in own]
    loop(model, optimizers, criterion, lr_schedulers, max_steps)


def sharded(model):
    """Shard a model over the processes, in place."""
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (model.fc1, model.fc2, model):
        fully_shard(layer, mesh=mesh)
    return model


def loss_of(model):
    model.eval()
    with torch.no_grad():
        return -float(sum(nn.functional.mse_loss(model(x), y) for x, y in rows(3)))


def as_it_is(target):
    return target


def sgd(model, traced=as_it_is):
    optimizer = traced(torch.optim.SGD)(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    return optimizer, traced(torch.optim.lr_scheduler.StepLR)(optimizer, 3, 0.5)


def adamw(model, traced=as_it_is):
    """Two groups, with options of their own."""
    own = dict(model.named_parameters())
    groups = [
        {"params": [p for name, p in own.items() if name.endswith("weight")]},
        {"params": [p for name, p in own.items() if name.endswith("bias")], "weight_decay": 0.0, "lr": 0.02},
    ]
    optimizer = traced(torch.optim.AdamW)(groups, lr=0.01, weight_decay=0.1)
    return optimizer, traced(torch.optim.lr_scheduler.CosineAnnealingLR)(optimizer, T_max=8)


OPTIMIZERS = {"sgd": sgd, "adamw": adamw}


def evaluator_of(training_func, make):
    """An evaluator as another process would have it: of a model that is neither parallel nor alive."""
    recorded = net(seed=9)
    optimizer, scheduler = make(recorded, rebind.trace)
    evaluator = rebind.TorchEvaluator(
        training_func,
        optimizer,
        nn.functional.mse_loss,
        scheduler,
        evaluating_func=loss_of,
        model=recorded,
    )
    return rebind.loads(rebind.dumps(evaluator), trusted=True)


def tensors(model):
    """All parameters and buffers of this process, copied."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: copy.deepcopy(whole(tensor.detach())) for name, tensor in named}


def assert_same(ours, theirs):
    """Equal to the last bit."""
    assert list(ours) == list(theirs)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def assert_same_everywhere(model):
    """The parameters of both processes are equal; batch statistics are of each one's own rows."""
    own = {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}
    everywhere = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, own)
    for other in everywhere:
        assert_same(own, other)
