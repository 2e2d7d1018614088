"""What tracing and creation cost, beside the plain constructions, in one run.

    python benchmarks/record.py

Prints the time of a plain and of a traced construction, and their difference; and what creating, that is
validating, an evaluator of them takes. Each figure is the best of 30 repetitions, taken in turn.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LinearLR, SequentialLR, StepLR

from rebind import TorchEvaluator, trace

Action = Callable[[], object]


def train(
    model: torch.nn.Module, optimizers: Optimizer, criterion: Action, lr_schedulers: object = None
) -> None:
    """Train nothing: only its signature is looked at."""


def best(actions: list[Action], number: int = 200, repeat: int = 30) -> list[float]:
    """Give the best time of each action in microseconds, measured in turn."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(repeat):
        for action, own in zip(actions, times, strict=True):
            own.append(timeit.timeit(action, number=number) / number * 1e6)
    return [min(own) for own in times]


def main() -> None:
    """Measure and print."""
    model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(3)])
    parameters = list(model.parameters())[:1]
    plain, traced = SGD(parameters, lr=0.1), trace(SGD)(parameters, lr=0.1)
    cases: dict[str, tuple[Action, Action]] = {
        "SGD": (lambda: SGD(parameters, lr=0.1), lambda: trace(SGD)(parameters, lr=0.1)),
        "AdamW": (lambda: AdamW(parameters, lr=0.1), lambda: trace(AdamW)(parameters, lr=0.1)),
        "StepLR": (lambda: StepLR(plain, 3), lambda: trace(StepLR)(traced, 3)),
    }
    print(f"{'':<10}{'plain':>10}{'traced':>10}{'adds':>10}   microseconds")
    for name, actions in cases.items():
        direct, recorded = best(list(actions))
        print(f"{name:<10}{direct:>10.1f}{recorded:>10.1f}{recorded - direct:>10.1f}")

    optimizer = trace(SGD)(model.parameters(), lr=0.1, momentum=0.9)
    parts = [trace(LinearLR)(optimizer), trace(ExponentialLR)(optimizer, 0.9)]
    scheduler = trace(SequentialLR)(optimizer, parts, [3])
    alone = trace(SGD)(model.parameters(), lr=0.1)
    (small, nested) = best(
        [
            lambda: TorchEvaluator(train, alone, F.cross_entropy),
            lambda: TorchEvaluator(train, optimizer, F.cross_entropy, scheduler),
        ],
        number=20,
    )
    print(
        f"creating an evaluator: {small:.0f} us; with a SequentialLR of two: {nested:.0f} us (1,000 at most)"
    )


if __name__ == "__main__":
    main()
