"""Recording and building an optimizer.

One `SGD` with two options on the parameters of a linear layer. *Record and build*: after it there is a record
of the construction and the live optimizer. rebind and NNI have both from one call; the others write a
configuration and build from it. *Build again* is a fresh optimizer from the record that there is: `rebind`
finds the recorded parameters by their names in a new model, the others are handed the parameters. The times
are those of the processor.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from harness.benchmark import Run
from harness.peers import installed
from harness.record import Comparison, Place, Promise
from harness.turns import Work, compare, repeated
from torch.optim import SGD

import rebind
from rebind.runtime.binding.reinitialise import reinitialise

_RECORD, _BUILD, _SCHEDULE = "Record and build", "Build again", "Record a scheduler"
PEERS = ("fiddle", "hydra-zen", "jsonargparse", "nni")
PROMISES = (
    Promise(
        says="recording and building an optimizer takes at most 1/4 of fiddle's time",
        of=Place(family=_RECORD, contestant="rebind"),
        to=Place(family=_RECORD, contestant="fiddle"),
        limit=0.25,
    ),
)


def train(model: torch.nn.Module, optimizers: object, criterion: object) -> None:
    """Never runs here."""


def comparisons(run: Run) -> Iterator[Comparison]:
    """Compare both, and the record of a scheduler."""
    rounds = run.pick(30, 3)
    model, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    optimizer = rebind.trace(SGD)(model.parameters(), lr=0.1, momentum=0.9)
    evaluator = rebind.TorchEvaluator(train, optimizer, F.mse_loss, model=model)
    mine, others = list(model.parameters()), list(other.parameters())
    record: dict[str, Work] = {
        "plain torch": lambda: SGD(mine, lr=0.1, momentum=0.9),
        "rebind": lambda: rebind.trace(SGD)(mine, lr=0.1, momentum=0.9),
    }
    build: dict[str, Work] = {
        "plain torch": lambda: SGD(others, lr=0.1, momentum=0.9),
        "rebind": lambda: reinitialise(evaluator, other, evaluator.optimizers, None),
    }
    for name, library in (
        ("fiddle", fiddle),
        ("hydra-zen", hydra_zen),
        ("jsonargparse", jsonargparse),
        ("nni", nni),
    ):
        if installed(name):
            library(mine, others, record, build)
    for family, works in ((_RECORD, record), (_BUILD, build)):
        yield _turns(family, works, rounds)
    schedule = torch.optim.lr_scheduler.StepLR
    plain = SGD(mine, lr=0.1)
    works = {
        "plain torch": lambda: schedule(plain, 3),
        "rebind": lambda: rebind.trace(schedule)(optimizer, 3),
    }
    yield _turns(_SCHEDULE, works, rounds)


def _turns(family: str, works: dict[str, Work], rounds: int) -> Comparison:
    timed = {name: repeated(work) for name, work in works.items()}
    return compare(family, timed, rounds, baseline="plain torch")


def fiddle(mine: list[object], others: list[object], record: dict[str, Work], build: dict[str, Work]) -> None:
    """Enter fiddle."""
    import fiddle as fdl

    config = fdl.Config(SGD, others, lr=0.1, momentum=0.9)
    record["fiddle"] = lambda: fdl.build(fdl.Config(SGD, mine, lr=0.1, momentum=0.9))
    record["fiddle, Config alone"] = lambda: fdl.Config(SGD, mine, lr=0.1, momentum=0.9)
    build["fiddle"] = lambda: fdl.build(config)


def hydra_zen(
    mine: list[object], others: list[object], record: dict[str, Work], build: dict[str, Work]
) -> None:
    """Enter hydra-zen, whose configurations cannot hold parameters: they are given to the partial."""
    from hydra_zen import builds, instantiate

    config = builds(SGD, lr=0.1, momentum=0.9, zen_partial=True)
    record["hydra-zen"] = lambda: instantiate(builds(SGD, lr=0.1, momentum=0.9, zen_partial=True))(mine)
    build["hydra-zen"] = lambda: instantiate(config)(others)


def jsonargparse(
    mine: list[object], others: list[object], record: dict[str, Work], build: dict[str, Work]
) -> None:
    """Enter jsonargparse, as Lightning's command line uses it: a parser of the class's arguments."""
    from jsonargparse import ArgumentParser, Namespace

    def parsed() -> Namespace:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(SGD, "optimizer", skip={"params"}, instantiate=False)
        return parser.parse_object({"optimizer": {"lr": 0.1, "momentum": 0.9}})

    options = parsed()
    record["jsonargparse"] = lambda: SGD(mine, **vars(parsed().optimizer))
    build["jsonargparse"] = lambda: SGD(others, **vars(options.optimizer))


def nni(mine: list[object], others: list[object], record: dict[str, Work], build: dict[str, Work]) -> None:
    """Enter NNI."""
    from nni import trace

    traced = trace(SGD)(mine, lr=0.1, momentum=0.9)
    record["NNI"] = lambda: trace(SGD)(mine, lr=0.1, momentum=0.9)
    build["NNI"] = lambda: traced.trace_symbol(**{**traced.trace_kwargs, "params": others})
