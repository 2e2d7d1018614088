"""A fresh optimizer on a new model.

`rebind` finds the recorded parameters by name and builds the optimizer; *rebind, bind* also notes the model's
hooks, flags and modes, to put them back. Plain torch builds the same optimizer from the model's parameters.
NNI compares each parameter with each other one, so it is measured up to 10,000 tensors. The second table has
2,000 tensors in more and more parameter groups. The times are those of the processor.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness.benchmark import Run
from harness.peers import installed
from harness.record import Comparison, Place, Promise
from harness.turns import Work, compare, timed
from torch import nn

from rebind import TorchEvaluator, bind, trace
from rebind.runtime.binding.reinitialise import reinitialise

_TENSORS, _GROUPS = "Over so many tensors", "Over so many parameter groups"
_NNI_LIMIT = 10_000
_PATIENCE = 20  # seconds: NNI at its limit
Parameters = Callable[[nn.Module], Any]


def _like_plain_torch(family: str, setting: str, says: str) -> Promise:
    of, to = (Place(family=family, setting=setting, contestant=name) for name in ("rebind", "plain torch"))
    return Promise(says=f"{says} at most 1.5 times as long as plain torch", of=of, to=to, limit=1.5)


PEERS = ("nni",)
PROMISES = (
    _like_plain_torch(_TENSORS, "10,000", "reinitialising 10,000 tensors takes"),
    # Plain torch looks at each tensor once; caches and the collection of garbage slow both down.
    _like_plain_torch(_TENSORS, "100,000", "growth is as linear as plain torch's: 100,000 tensors take"),
    _like_plain_torch(_GROUPS, "1,000", "reinitialising 2,000 tensors in 1,000 groups takes"),
)


def layers(tensors: int) -> nn.Module:
    """Give layers with a weight and a bias each."""
    model = nn.Module()
    for index in range(tensors // 2):
        model.add_module(f"layer{index}", nn.LayerNorm(2))
    return model


def in_groups(count: int) -> Parameters:
    """Give what makes so many parameter groups of a model's parameters."""

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        parameters = list(model.parameters())
        each = len(parameters) // count
        return [
            {"params": parameters[first : first + each], "lr": 0.1 / (1 + first)}
            for first in range(0, count * each, each)
        ]

    return groups


def train(model: nn.Module, optimizers: Any, criterion: Any) -> None:
    """Never runs here."""


def training_step(batch: Any, model: nn.Module) -> Any:
    """Never runs either."""


def comparisons(run: Run) -> Iterator[Comparison]:
    """Compare over the number of tensors, and over that of groups."""
    if installed("nni"):
        import nni.compression  # noqa: F401 - its import is needed, and not its name
    gc.freeze()  # what was imported is nobody's garbage, and takes long to look through
    rounds = run.pick(9, 3)
    for tensors in run.pick((10, 1_000, 10_000, 100_000), (10, 100)):
        theirs = installed("nni") and tensors <= _NNI_LIMIT
        yield _compared(_TENSORS, tensors, nn.Module.parameters, tensors, rounds=rounds, nni=theirs)
    for groups in run.pick((1, 10, 100, 1_000), (1, 10)):
        tensors = run.pick(2_000, 20)
        yield _compared(_GROUPS, groups, in_groups(groups), tensors, rounds=rounds, nni=installed("nni"))


def _compared(
    family: str, size: int, parameters: Parameters, tensors: int, *, rounds: int, nni: bool
) -> Comparison:
    works = contestants(tensors, parameters)
    if nni:
        works["NNI"] = of_nni(tensors, parameters)
    # Collecting garbage is part of what many objects cost.
    timed_works = {name: timed(work, clock=time.process_time, pause_gc=False) for name, work in works.items()}
    return compare(
        family,
        timed_works,
        rounds,
        baseline="plain torch",
        setting=f"{size:,}",
        size=size,
        patience=_PATIENCE,
    )


def contestants(tensors: int, parameters: Parameters) -> dict[str, Work]:
    """Give those that are always there."""
    model, other = layers(tensors), layers(tensors)
    optimizer = trace(torch.optim.SGD)(parameters(model), lr=0.1)
    evaluator = TorchEvaluator(train, optimizer, nn.functional.mse_loss, model=model)
    return {
        "plain torch": lambda: torch.optim.SGD(parameters(other), lr=0.1),
        "rebind": lambda: reinitialise(evaluator, other, evaluator.optimizers, None),
        "rebind, bind": lambda: bind(evaluator, other),
    }


def of_nni(tensors: int, parameters: Parameters) -> Work:
    """Give NNI's reinitialisation of the same optimizer."""
    import nni
    from nni.compression.utils import TorchEvaluator as TheirEvaluator

    model, other = layers(tensors), layers(tensors)
    optimizer = nni.trace(torch.optim.SGD)(parameters(model), lr=0.1)
    evaluator = TheirEvaluator(train, optimizer, training_step)
    evaluator._init_optimizer_helpers(model)

    def run() -> None:
        evaluator.bind_model(other, {name: name for name, _ in other.named_parameters()})
        evaluator.unbind_model()

    return run
