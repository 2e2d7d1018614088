"""An evaluator, models and tasks for the tests of trials; workers import them from here."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import time

import numpy as np
import torch
from torch import nn

import rebind
from rebind.runtime.trials.conditions import current_settings


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.first = nn.Linear(6, width)
        self.last = nn.Linear(width, 2)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


def train(model, optimizers, criterion, max_steps=None, max_epochs=None):
    model.train()
    for _ in range(3 if max_steps is None else max_steps):
        x = torch.randn(16, 6)
        y = (x.sum(1) > 0).long()
        optimizers.zero_grad()
        criterion(model(x), y).backward()
        optimizers.step()


def score(model):
    x = torch.linspace(-1, 1, 96).reshape(16, 6)
    with torch.no_grad():
        found = model(x).softmax(1)[:, 0].mean().item()
    return found, {"width": model.first.out_features}


def make_evaluator(**more):
    model = Net()
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    return rebind.TorchEvaluator(
        train, optimizer, nn.CrossEntropyLoss(), evaluating_func=score, model=model, **more
    )


class CannotPickleError(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.lock = two


class FailsToUnpickle:
    def __reduce__(self):
        return _refuse_elsewhere, (os.getpid(),)


def _refuse_elsewhere(pid):
    raise RuntimeError("this does not come back")


def evaluate_only(binding):
    return binding.evaluate()


def raises(binding):
    raise ValueError("no such luck")


def raises_unpicklable(binding):
    raise CannotPickleError("cannot be sent", ctypes.c_void_p(1))


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("cannot be printed")


def raises_unprintable(binding):
    raise UnprintableError


def leaves(binding):
    sys.exit(3)


def exits(binding):
    os._exit(3)


def is_killed(binding):
    os.kill(os.getpid(), signal.SIGKILL)


def segfaults(binding):
    ctypes.string_at(0)


def hangs(binding):
    time.sleep(3600)


def tells_its_process_and_hangs(path, binding):
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)
    time.sleep(3600)


def returns_unpicklable(binding):
    return ctypes.pointer(ctypes.c_int(1))


def returns_what_fails_to_unpickle(binding):
    return FailsToUnpickle()


def scores_with_unpicklable_info(binding):
    return 0.5, {"handle": ctypes.pointer(ctypes.c_int(1))}


def random_numbers(binding):
    return [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()]  # noqa: NPY002


def conditions(binding):
    return {
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def settings_of_torch(binding):
    return current_settings()


def changes_the_process(binding):
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    return str(torch.ones(1).dtype)


def die_until(path, binding):
    """Be killed on the first call, score on the next."""
    if not path.exists():
        path.write_text("been here")
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def returns_nothing(binding):
    pass


SHARED = Net(4)
