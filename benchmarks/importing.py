"""Importing.

Each import is timed in a fresh interpreter, with the files in the page cache. `import rebind` loads its parts
when they are first used: *import torch, rebind; use it* also records an optimizer and creates an evaluator.
The times are those of the processor.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

from harness.benchmark import Run
from harness.peers import installed
from harness.record import Comparison, Place, Promise
from harness.turns import compare

_FAMILY = "Import"
_USE = (
    "import torch, rebind\n"
    "model = torch.nn.Linear(1, 1)\n"
    "optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)\n"
    "train = lambda model, optimizers, criterion: None\n"
    "rebind.TorchEvaluator(train, optimizer, torch.nn.MSELoss(), model=model)"
)
_STATEMENTS = {
    "import torch": ("torch", "import torch"),
    "rebind: import rebind": ("torch", "import rebind"),
    "rebind: import torch, rebind": ("torch", "import torch, rebind"),
    "rebind: import torch, rebind; use it": ("torch", _USE),
    "import pytorch_lightning": ("pytorch-lightning", "import pytorch_lightning"),
    "import fiddle": ("fiddle", "import fiddle"),
    "import hydra_zen": ("hydra-zen", "import hydra_zen"),
    "import nni": ("nni", "import nni"),
    "import nni.compression": ("nni", "import nni.compression"),
}
PEERS = ("fiddle", "hydra-zen", "nni")
PROMISES = (
    Promise(
        says="`import torch, rebind` takes at most 1.05 times as long as `import torch`",
        of=Place(family=_FAMILY, contestant="rebind: import torch, rebind"),
        to=Place(family=_FAMILY, contestant="import torch"),
        limit=1.05,
    ),
)


def comparisons(run: Run) -> Iterator[Comparison]:
    """Compare the imports."""
    works = {name: importing(code) for name, (peer, code) in _STATEMENTS.items() if installed(peer)}
    yield compare(_FAMILY, works, run.pick(5, 1), baseline="import torch", patience=12)


def importing(code: str) -> Callable[[], float]:
    """Give what tells the seconds of a piece of code in an interpreter that has nothing imported."""
    script = f"import time\nbegan = time.process_time()\n{code}\nprint(time.process_time() - began)"

    def seconds() -> float:
        done = subprocess.run(  # noqa: S603 - our own script
            [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
        )
        return float(done.stdout.split()[-1])

    return seconds
