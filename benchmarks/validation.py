"""Creating and validating an evaluator.

Everything is checked when an evaluator is created: signatures, arguments, parameters, schedulers, and whether
each field can be shipped. NNI's evaluator is created with the same objects, and checks little more than their
types. The times are those of the processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from harness.benchmark import Run
from harness.peers import installed
from harness.record import Comparison, Place, Promise
from harness.turns import Work, compare, repeated
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR, LinearLR, SequentialLR

from rebind import TorchEvaluator, trace

_FAMILY = "Create an evaluator"
_NESTED = "rebind, SequentialLR of two"
PEERS = ("nni",)
PROMISES = (
    Promise(
        says="creating an evaluator with nested schedulers takes at most 1 ms",
        of=Place(family=_FAMILY, contestant=_NESTED),
        limit=1e-3,
    ),
)


def train(model: Any, optimizers: Any, criterion: Any, lr_schedulers: Any = None) -> None:
    """Never runs: only its signature is looked at."""


def training_step(batch: Any, model: Any) -> Any:
    """Never runs either."""


def comparisons(run: Run) -> Iterator[Comparison]:
    """Compare an evaluator of one optimizer, one with nested schedulers, and NNI's."""
    model = torch.nn.Linear(1, 1)
    alone = trace(SGD)(model.parameters(), lr=0.1)
    optimizer = trace(SGD)(model.parameters(), lr=0.1, momentum=0.9)
    parts = [trace(LinearLR)(optimizer), trace(ExponentialLR)(optimizer, 0.9)]
    scheduler = trace(SequentialLR)(optimizer, parts, [3])
    works: dict[str, Work] = {
        "rebind": lambda: TorchEvaluator(train, alone, F.cross_entropy, model=model),
        _NESTED: lambda: TorchEvaluator(train, optimizer, F.cross_entropy, scheduler, model=model),
    }
    if installed("nni"):
        import nni
        from nni.compression.utils import TorchEvaluator as TheirEvaluator

        theirs = nni.trace(SGD)(model.parameters(), lr=0.1)
        works["NNI"] = lambda: TheirEvaluator(train, theirs, training_step)
    timed = {name: repeated(work) for name, work in works.items()}
    yield compare(_FAMILY, timed, run.pick(40, 3), baseline="rebind")
