"""A small model, its evaluator, and the same loop as a user writes it; the oracle of the tests here."""

import torch
from torch import nn

from rebind import TorchEvaluator, bind, trace

BATCHES = [torch.sin(torch.arange(8.0) + number).view(4, 2) for number in range(16)]
TARGETS = [batch.sum(1, keepdim=True) for batch in BATCHES]
mse = nn.functional.mse_loss


class Net(nn.Module):
    """With batch norm, whose statistics tell how often it was run for training; and dropout."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(2, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.25)
        self.fc2 = nn.Linear(4, 1)

    def forward(self, x):
        return self.fc2(self.drop(torch.relu(self.norm(self.fc1(x)))))


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def train(model, optimizers, criterion, lr_schedulers=None, max_steps=None):
    """A user's own loop."""
    model.train()
    listed = optimizers if isinstance(optimizers, list) else [optimizers]
    for number in range(16 if max_steps is None else max_steps):
        for optimizer in listed:
            optimizer.zero_grad()
        x, y = BATCHES[number % 16], TARGETS[number % 16]
        criterion(model(x), y).backward()
        for optimizer in listed:
            optimizer.step()
        if lr_schedulers is not None:
            lr_schedulers.step()


def train_on(model, optimizers, criterion, lr_schedulers=None):
    """The same loop, which ignores every limit."""
    train(model, optimizers, criterion, lr_schedulers, max_steps=64)


def sgd(params):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


def exponential(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def evaluator_of(
    model, training_func=train, *, criterion=mse, make=sgd, schedule=None, evaluating_func=None, **options
):
    optimizer = trace(make)(list(model.parameters()))
    schedulers = None if schedule is None else trace(schedule)(optimizer)
    return TorchEvaluator(
        training_func,
        optimizer,
        criterion,
        schedulers,
        evaluating_func=evaluating_func,
        model=model,
        **options,
    )


def bound(model=None, training_func=train, **options):
    """A binding of the net, and a twin of the net for the oracle; the random numbers start anew."""
    model = net() if model is None else model
    binding = bind(evaluator_of(model, training_func, **options), model)
    torch.manual_seed(1)
    return binding


def by_hand(loop, make=sgd, schedule=None, seed=0):
    """The twin, after a plain loop: `loop(model, optimizer, scheduler)`."""
    model = net(seed)
    optimizer = make(list(model.parameters()))
    scheduler = None if schedule is None else schedule(optimizer)
    torch.manual_seed(1)
    model.train()
    loop(model, optimizer, scheduler)
    return model


def assert_same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def steps_by_hand(count, loss=mse, before=None, after=None):
    """A plain loop of so many steps, with things done around each."""

    def loop(model, optimizer, scheduler):
        for number in range(count):
            optimizer.zero_grad()
            x, y = BATCHES[number % 16], TARGETS[number % 16]
            loss(model(x), y).backward()
            if before:
                before(model)
            optimizer.step()
            if after:
                after(model)
            if scheduler is not None:
                scheduler.step()

    return loop
