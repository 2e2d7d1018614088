"""What a file costs: saving, loading and memory beside torch, safetensors and cloudpickle, in the same run.

    python benchmarks/container.py [--folder DIR] [--smallest MIB] [--largest MIB]

An evaluator whose dummy input is one tensor of 1 KiB to 1 GiB is saved and loaded; the others write and
read that tensor alone (cloudpickle: the evaluator). The contestants take turns, so that whatever else
happens on the machine happens to all of them, and the medians of their times are compared. Memory is
measured in a fresh process for each: the most of its own memory (anonymous pages, not the page cache)
that it needed on top of what it had before. Files are read from the page cache.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle
import safetensors.torch
import torch
from rich.console import Console
from rich.table import Table

import rebind

KIB, MIB = 1 << 10, 1 << 20
SIZES = {"1 KiB": (KIB, 201), "1 MiB": (MIB, 101), "100 MiB": (100 * MIB, 15), "1 GiB": (1024 * MIB, 15)}
Work = Callable[[], object]
Times = dict[str, dict[str, float]]


def evaluator_of(tensor: torch.Tensor) -> rebind.TorchEvaluator:
    """An evaluator with this dummy input, and with code, as most have."""
    scale = 1.0

    def train(model: Any, optimizers: Any, criterion: Any) -> Any:
        return criterion(model, optimizers) * scale

    model = torch.nn.Linear(2, 1)
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)
    return rebind.TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss, dummy_input=tensor)


def atomically(write: Callable[[Path], object], path: Path) -> None:
    """Write a file as safely as `rebind.save` does: a new one, on the disk, then under its name."""
    new = path.with_suffix(".new")
    write(new)
    for place, flags in ((new, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        if place != new:
            new.replace(path)
        descriptor = os.open(place, flags)
        os.fsync(descriptor)
        os.close(descriptor)


def dump(value: object, path: Path) -> None:
    """What people write with cloudpickle."""
    with path.open("wb") as file:
        cloudpickle.dump(value, file)


def undump(path: Path) -> object:
    """And how they read it."""
    with path.open("rb") as file:
        return cloudpickle.load(file)


def savers(evaluator: rebind.TorchEvaluator, folder: Path) -> dict[str, Work]:
    """How each writes its file."""
    tensor = evaluator.dummy_input
    return {
        "rebind": lambda: rebind.save(evaluator, folder / "rebind", durable=False),
        "safetensors": lambda: safetensors.torch.save_file({"x": tensor}, folder / "safetensors"),
        "torch.save": lambda: torch.save({"x": tensor}, folder / "torch"),
        "cloudpickle": lambda: dump(evaluator, folder / "cloudpickle"),
    }


def durable_savers(evaluator: rebind.TorchEvaluator, folder: Path) -> dict[str, Work]:
    """Rebind as it saves if nothing else is said, and the other one with the same care."""
    content = {"x": evaluator.dummy_input}
    return {
        "rebind, on disk": lambda: rebind.save(evaluator, folder / "rebind"),
        "safetensors, on disk": lambda: atomically(
            lambda new: safetensors.torch.save_file(content, new), folder / "safetensors"
        ),
    }


def loaders(folder: Path) -> dict[str, Work]:
    """How each reads its file. Only the first one knows whether it read what was written."""
    return {
        "rebind": lambda: rebind.load(folder / "rebind", trusted=True),
        "rebind, tensors not verified": lambda: rebind.load(
            folder / "rebind", trusted=True, verify_tensors=False
        ),
        "safetensors": lambda: safetensors.torch.load_file(folder / "safetensors"),
        "torch.load": lambda: torch.load(folder / "torch"),
        "torch.load(mmap=True)": lambda: torch.load(folder / "torch", mmap=True),
        "cloudpickle": lambda: undump(folder / "cloudpickle"),
    }


def medians(contestants: dict[str, Work], repeats: int, *, from_synced: bool = False) -> dict[str, float]:
    """The median of each contestant's times, in seconds. They take turns; the first round does not count.

    Each round begins with the next one, as what came before costs as well: the disk is still at work.
    With `from_synced`, each starts with nothing left to write from those before it.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for beginner in range(repeats + 1):
        in_turn = list(contestants.items())
        for name, work in in_turn[beginner % len(in_turn) :] + in_turn[: beginner % len(in_turn)]:
            if from_synced:
                os.sync()
            started = time.perf_counter()
            result = work()
            times[name].append(time.perf_counter() - started)
            del result
    return {name: statistics.median(of[1:]) for name, of in times.items()}


def own_memory(process: int | str) -> int:
    """The anonymous memory of a process, in bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * KIB
    return 0


def work_alone(side: str, name: str, size: int, folder: Path, pipe: Connection) -> None:
    """One contestant in a process of its own: ready, go, done."""
    torch.set_num_threads(1)
    small = torch.zeros(KIB, dtype=torch.uint8)
    for work in savers(evaluator_of(small), folder / "warm").values():
        work()
    loaders(folder / "warm")[name]() if side == "load" else None
    content = torch.ones(size, dtype=torch.uint8) if side == "save" else None
    work = savers(evaluator_of(content), folder)[name] if content is not None else loaders(folder)[name]
    pipe.send(own_memory("self"))
    pipe.recv()
    result = work()
    pipe.send(own_memory("self"))
    pipe.recv()
    del result


def peak_memory(side: str, name: str, size: int, folder: Path) -> int:
    """How much memory of its own a contestant needs at most, in bytes."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=work_alone, args=(side, name, size, folder, theirs)
    )
    process.start()
    theirs.close()
    before: int = ours.recv()
    peak = before
    ours.send("go")
    while not ours.poll(0.001):
        peak = max(peak, own_memory(process.pid or "self"))
    peak = max(peak, ours.recv())
    ours.send("done")
    process.join()
    return peak - before


def readable(seconds: float) -> str:
    """A time in milliseconds."""
    return f"{seconds * 1e3:,.2f} ms"


def shown(size: str, side: str, times: dict[str, float], memory: dict[str, int]) -> Table:
    """A table with a row for each contestant, and the ratio to its baseline: above 1 is slower."""
    table = Table(title=f"{side} {size}", title_justify="left")
    for column in ("", "median", "of safetensors", "of torch", "memory"):
        table.add_column(column, justify="left" if not column else "right")
    for name, seconds in times.items():
        durable = name.endswith("on disk")
        baselines = ("safetensors, on disk" if durable else "safetensors", f"torch.{side}")
        ratios = [seconds / times[baseline] for baseline in baselines]
        peak = f"{memory[name] / MIB:,.1f} MiB" if name in memory else ""
        table.add_row(name, readable(seconds), *(f"{ratio:.3g} x" for ratio in ratios), peak)
    return table


def verdicts(
    saving: dict[str, dict[str, float]], loading: dict[str, dict[str, float]]
) -> list[tuple[str, bool]]:
    """What was promised, with what was measured, and whether it holds."""
    told = []
    for size, times in saving.items():
        for ours, theirs in (("rebind", "safetensors"), ("rebind, on disk", "safetensors, on disk")):
            ratio = times[ours] / times[theirs]
            told.append((f"saving {size} takes {ratio:.2f} x {theirs}, at most 1.15", ratio <= 1.15))
    for size, times in loading.items():
        quick = times["rebind, tensors not verified"]
        told.append((f"loading {size} unverified takes {readable(quick)}, less than 2 ms", quick < 2e-3))
    largest = list(loading)[-1]
    ratio = loading[largest]["torch.load"] / loading[largest]["rebind"]
    told.append(
        (f"loading {largest} verified is {ratio:.1f} x faster than torch.load, at least 2", ratio >= 2)
    )
    return told


def main() -> int:
    """Measure, and print the tables and what they mean; the exit code counts the promises that fail."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to write; among temporary files, if not given")
    parser.add_argument("--smallest", type=float, default=0, help="in MiB")
    parser.add_argument("--largest", type=float, default=1024, help="in MiB")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    console = Console(width=110, highlight=False)
    saving: Times = {}
    loading: Times = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (folder / "warm").mkdir()
        console.print(
            f"torch {torch.__version__}, {len(os.sched_getaffinity(0))} cores, in {folder.parent}\n"
        )
        for size, (count, repeats) in SIZES.items():
            if not options.smallest * MIB <= count <= options.largest * MIB:
                continue
            evaluator = evaluator_of(torch.randint(0, 256, (count,), dtype=torch.uint8))
            saving[size] = medians(savers(evaluator, folder), repeats, from_synced=True)
            durable = durable_savers(evaluator, folder)
            saving[size] |= medians(durable, min(repeats, 15), from_synced=True)
            del durable
            del evaluator
            loading[size] = medians(loaders(folder), repeats)
            for side, times in (("save", saving[size]), ("load", loading[size])):
                alone = [each for each in times if count >= 100 * MIB and not each.endswith("on disk")]
                memory = {each: peak_memory(side, each, count, folder) for each in alone}
                console.print(shown(size, side, times, memory))
    missed = 0
    for promise, holds in verdicts(saving, loading):
        console.print(f"{'holds ' if holds else 'MISSED'}  {promise}")
        missed += not holds
    return missed


if __name__ == "__main__":
    sys.exit(main())
