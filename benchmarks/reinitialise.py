"""What a fresh optimizer costs on a new model: plain torch, `reinitialise`, `bind` and NNI 3.0 in one run.

    python benchmarks/reinitialise.py [TENSORS ...]

`reinitialise` finds the recorded parameters by name and builds the optimizer. `bind` also notes the model's
hooks, flags and modes, to put them back. NNI is measured where it is installed (`pip install nni==3.0`).
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from rebind import TorchEvaluator, bind, trace
from rebind.runtime.binding.binding.reinitialise import reinitialise

SIZES = (10, 1_000, 10_000, 100_000)
REPEATS = 9
# NNI compares each parameter with each other one: 100,000 of them would take minutes.
NNI_LIMIT = 10_000


def layers(tensors: int) -> nn.Module:
    """Layers with a weight and a bias each."""
    model = nn.Module()
    for index in range(tensors // 2):
        model.add_module(f"layer{index}", nn.LayerNorm(2))
    return model


def train(model: nn.Module, optimizers: Any, criterion: Any) -> None:
    """Never runs here."""


def training_step(batch: Any, model: nn.Module) -> Any:
    """Never runs either."""


def seconds(*functions: Callable[[], Any]) -> list[float]:
    """Time several functions in turn, so that what else the machine does hits them alike; the medians."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(REPEATS):
        for function, measured in zip(functions, times, strict=True):
            gc.collect()
            start = time.perf_counter()
            kept = function()
            measured.append(time.perf_counter() - start)
            del kept
    return [statistics.median(measured) for measured in times]


def of_nni(tensors: int) -> Callable[[], Any] | None:
    """Give NNI's reinitialisation of the same optimizer, where NNI is installed."""
    if find_spec("nni") is None or tensors > NNI_LIMIT:
        return None
    import nni
    from nni.compression.utils import TorchEvaluator as TheirEvaluator

    model, other = layers(tensors), layers(tensors)
    optimizer = nni.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    evaluator = TheirEvaluator(train, optimizer, training_step)
    evaluator._init_optimizer_helpers(model)

    def run() -> Any:
        evaluator.bind_model(other, {name: name for name, _ in other.named_parameters()})
        evaluator.unbind_model()

    return run


def compare(tensors: int) -> str:
    """Measure one size, and give its line of the table."""
    model, other = layers(tensors), layers(tensors)
    optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    evaluator = TorchEvaluator(train, optimizer, nn.functional.mse_loss, model=model)
    theirs = of_nni(tensors)
    plain, ours, whole, *nni = seconds(
        lambda: torch.optim.SGD(other.parameters(), lr=0.1),
        lambda: reinitialise(evaluator, other, evaluator.optimizers, None),
        lambda: bind(evaluator, other),
        *([theirs] if theirs else []),
    )
    cells = [f"{tensors:>8,}", f"{plain * 1e3:>11.2f} ms"]
    cells += [f"{time * 1e3:>9.2f} ms {time / plain:>6.2f} x" for time in (ours, whole, *nni)]
    return "  ".join(cells)


def main() -> None:
    """Print the table."""
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    print(f"torch {torch.__version__}; medians of {REPEATS}, in turn")
    print(f"{'tensors':>8}  {'plain SGD':>14}  {'reinitialise':>21}  {'bind':>21}  {'NNI 3.0':>21}")
    for size in sizes:
        print(compare(size), flush=True)


if __name__ == "__main__":
    main()
