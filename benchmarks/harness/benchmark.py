"""One benchmark: a module with contestants and promises, run in this process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from .peers import installed
from .record import Report
from .terminal import show_comparison

# In this order they are run and shown. Each is a module in the folder above, which has
# a docstring (the title, and what is measured), `comparisons(run)`, `PROMISES` and `PEERS`.
NAMES = (
    "recording",
    "validation",
    "reinitialisation",
    "container",
    "sharing",
    "growth",
    "starting",
    "training",
    "importing",
)

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """How a benchmark is to be run.

    Attributes:
        quick: Small sizes and few repeats: only to see that everything runs.
        folder: Where files may be written.
    """

    quick: bool
    folder: Path

    def pick(self, whole: T, quick: T) -> T:
        """Give what fits the run."""
        return quick if self.quick else whole


def run_benchmark(name: str, run: Run, console: Console) -> Report:
    """Run it, print each comparison as it comes, and give what was measured."""
    module = import_module(name)
    title, _, about = (module.__doc__ or "").strip().partition("\n")
    began = time.monotonic()
    found = []
    for comparison in module.comparisons(run):
        show_comparison(console, comparison)
        found.append(comparison)
    return Report(
        name=name,
        title=title.rstrip("."),
        about=about.strip(),
        comparisons=tuple(found),
        promises=tuple(module.PROMISES),
        left_out=tuple(peer for peer in module.PEERS if not installed(peer)),
        seconds=round(time.monotonic() - began, 1),
    )
