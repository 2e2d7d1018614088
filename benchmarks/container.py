"""Writing and reading an evaluator.

An evaluator without tensors, and with a dummy input of 1 KiB to 1 GiB. cloudpickle takes the evaluator as
well; safetensors, torch and memcpy take the tensor alone. *dumps* and *loads* are in memory, *save* and
*load* go through a file that is read from the page cache. Only rebind knows whether it read what was
written: *not verified* leaves out the digests of the tensors. *safetensors, with the evaluator* is the same
content by hand: the tensor, and the rest as one pickle, without digests, versions and a table of contents.
Where tensors are only mapped, as by it, by safetensors and by *torch, mmap*, nothing of them has been read
yet. *On disk* is what `rebind.save` does if nothing else is said, and safetensors with the same care: fsync
and rename. *On a memory disk* leaves out what the disk is busy with. Memory is the most anonymous memory
(not the page cache) that a fresh process needed on top of what it had before; memcpy's is that of the copy.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from harness.benchmark import Run
from harness.memory import peak_memory
from harness.peers import installed
from harness.record import Comparison, Place, Promise
from harness.turns import Timed, Work, compare, timed

import rebind

KIB, MIB = 1 << 10, 1 << 20
# Bytes of tensors, and rounds.
_SIZES = {
    "no tensors": (0, 51),
    "1 KiB": (KIB, 51),
    "1 MiB": (MIB, 31),
    "100 MiB": (100 * MIB, 7),
    "1 GiB": (1024 * MIB, 5),
}
_MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - where Linux has it
_SAVE, _ON_DISK, _ON_MEMORY_DISK = "save", "save on disk", "save on a memory disk"
_LARGEST = "1 GiB"
_BY_HAND = "safetensors, with the evaluator"


def _ratio(family: str, setting: str, theirs: str, says: str, limit: float) -> Promise:
    of, to = (Place(family=family, setting=setting, contestant=name) for name in ("rebind", theirs))
    return Promise(says=says, of=of, to=to, limit=limit)


def _saving(family: str, size: str, how: str) -> Promise:
    says = f"saving {size} takes at most 1.15 times as long as safetensors, {how}"
    return _ratio(family, size, "safetensors", says, 1.15)


PEERS = ("safetensors",)
PROMISES = (
    *(_saving(_SAVE, size, "without fsync") for size in ("1 KiB", "1 MiB", "100 MiB", _LARGEST)),
    _saving(_ON_DISK, _LARGEST, "with fsync and rename"),
    _saving(_ON_MEMORY_DISK, _LARGEST, "on a memory disk"),
    _ratio(
        "load",
        _LARGEST,
        "torch",
        f"loading and verifying {_LARGEST} takes at most 1/2 of torch.load's time",
        0.5,
    ),
    Promise(
        says=f"loading {_LARGEST} without verifying takes at most 2 ms",
        of=Place(family="load", setting=_LARGEST, contestant="rebind, not verified"),
        limit=2e-3,
    ),
)


def evaluator_of(tensor: torch.Tensor | None) -> rebind.TorchEvaluator:
    """Give an evaluator with this dummy input, and with code, as most have."""
    scale = 1.0

    def train(model: Any, optimizers: Any, criterion: Any) -> Any:
        return criterion(model, optimizers) * scale

    model = torch.nn.Linear(2, 1)
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)
    return rebind.TorchEvaluator(
        train, optimizer, torch.nn.functional.mse_loss, dummy_input=tensor, model=model
    )


def contents(size: int) -> torch.Tensor:
    """Give a tensor that nothing can make smaller."""
    return torch.randint(0, 256, (size,), dtype=torch.uint8)


def savers(size: int, folder: Path) -> dict[str, Work]:
    """Give how each writes its file."""
    tensor = contents(size)
    evaluator = evaluator_of(tensor if size else None)
    works: dict[str, Work] = {"rebind": lambda: rebind.save(evaluator, folder / "rebind", durable=False)}
    if installed("safetensors"):
        from safetensors.torch import save_file

        works["safetensors"] = lambda: save_file({"x": tensor}, folder / "safetensors")
        if size:
            works[_BY_HAND] = lambda: save_file(by_hand(evaluator, tensor), folder / "by hand")
    works["torch"] = lambda: torch.save({"x": tensor}, folder / "torch")
    works["cloudpickle"] = lambda: _dump(evaluator, folder / "cloudpickle")
    return works


def by_hand(evaluator: rebind.TorchEvaluator, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Give what a rebind file holds, in the way of safetensors: the tensor, and the rest as one pickle."""
    rest = cloudpickle.dumps({**evaluator.fields(), "dummy_input": None})
    return {"x": tensor, "evaluator": torch.frombuffer(bytearray(rest), dtype=torch.uint8)}


def durable_savers(size: int, folder: Path) -> dict[str, Work]:
    """Give how rebind saves if nothing else is said, and another with the same care."""
    tensor = contents(size)
    evaluator = evaluator_of(tensor if size else None)
    works: dict[str, Work] = {"rebind": lambda: rebind.save(evaluator, folder / "rebind")}
    if installed("safetensors"):
        from safetensors.torch import save_file

        works["safetensors"] = lambda: _atomically(
            lambda new: save_file({"x": tensor}, new), folder / "safetensors"
        )
    return works


def loaders(size: int, folder: Path) -> dict[str, Work]:
    """Give how each reads the file that it wrote."""
    own = folder / "rebind"
    works: dict[str, Work] = {
        "rebind": lambda: rebind.load(own, trusted=True),
        "rebind, not verified": lambda: rebind.load(own, trusted=True, verify_tensors=False),
    }
    if installed("safetensors"):
        from safetensors.torch import load_file

        works["safetensors"] = lambda: load_file(folder / "safetensors")
    works["torch"] = lambda: torch.load(folder / "torch")
    works["torch, mmap"] = lambda: torch.load(folder / "torch", mmap=True)
    works["cloudpickle"] = lambda: _undump(folder / "cloudpickle")
    return works


def dumpers(size: int, folder: Path) -> dict[str, Work]:
    """Give how each makes bytes."""
    tensor = contents(size)
    evaluator = evaluator_of(tensor if size else None)
    works: dict[str, Work] = {"memcpy": tensor.clone, "rebind": lambda: rebind.dumps(evaluator)}
    if installed("safetensors"):
        from safetensors.torch import save

        works["safetensors"] = lambda: save({"x": tensor})

    def to_bytes() -> bytes:
        file = io.BytesIO()
        torch.save({"x": tensor}, file)
        return file.getvalue()

    works["torch"] = to_bytes
    works["cloudpickle"] = lambda: cloudpickle.dumps(evaluator)
    return works


def undumpers(size: int, folder: Path) -> dict[str, Work]:
    """Give how each reads the bytes that it made."""
    return {name: undumper(name, size, folder) for name in dumpers(0, folder)}


def undumper(name: str, size: int, folder: Path) -> Work:
    """Give how one reads the bytes that it made, which are the only ones in memory."""
    if name == "memcpy":
        return contents(size).clone
    data: Any = dumpers(size, folder)[name]()
    if name == "rebind":
        return lambda: rebind.loads(data, trusted=True)
    if name == "torch":
        return lambda: torch.load(io.BytesIO(data))
    if name == "cloudpickle":
        return lambda: cloudpickle.loads(data)
    from safetensors.torch import load

    return lambda: load(data)


def _dump(value: object, path: Path) -> None:
    with path.open("wb") as file:
        cloudpickle.dump(value, file)


def _undump(path: Path) -> object:
    with path.open("rb") as file:
        return cloudpickle.load(file)


def _atomically(write: Callable[[Path], object], path: Path) -> None:
    """Write a file as safely as `rebind.save` does: a new one, on the disk, then under its name."""
    new = path.with_suffix(".new")
    write(new)
    for place, flags in ((new, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        if place != new:
            new.replace(path)
        descriptor = os.open(place, flags)
        os.fsync(descriptor)
        os.close(descriptor)


Makers = Callable[[int, Path], dict[str, Work]]


def comparisons(run: Run) -> Iterator[Comparison]:
    """Compare sizes, and the memory that the larger ones need."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    sizes = run.pick(_SIZES, {"no tensors": (0, 3), "1 MiB": (MIB, 3)})
    for setting, (size, rounds) in sizes.items():
        # What others left to be written is not to be waited for.
        settled = os.sync if size >= 100 * MIB else None
        turns: list[tuple[str, Makers, Work | None]] = [
            ("dumps", dumpers, None),
            ("loads", undumpers, None),
            (_SAVE, savers, settled),
            ("load", loaders, None),
            (_ON_DISK, durable_savers, settled),
        ]
        for family, makers, before in turns:
            works = _timed(makers(size, run.folder), before)
            yield _compared(family, setting, works, rounds, size)
            del works  # its tensors, before there are more
        if _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > 8 * size:
            with tempfile.TemporaryDirectory(dir=_MEMORY_DISK) as folder:
                works = _timed(savers(size, Path(folder)))
                yield _compared(_ON_MEMORY_DISK, setting, works, rounds, size)
                del works
        if size >= run.pick(100 * MIB, MIB):
            yield from _memory(setting, size, run.folder)


def _timed(works: dict[str, Work], before: Work | None = None) -> dict[str, Timed]:
    return {name: timed(work, before=before) for name, work in works.items()}


def _compared(family: str, setting: str, works: dict[str, Timed], rounds: int, size: int) -> Comparison:
    return compare(
        family,
        works,
        rounds,
        baseline="safetensors" if "safetensors" in works else "rebind",
        setting=setting,
        # Without tensors it is drawn as the size of the evaluator itself, which is less than a KiB.
        size=size or 0.1 * KIB,
        patience=12,
    )


def _memory(setting: str, size: int, folder: Path) -> Iterator[Comparison]:
    sides: dict[str, Makers] = {
        "dumps": dumpers, "loads": undumpers, "save": savers, "load": loaders
    }  # fmt: skip
    for side, makers in sides.items():
        names = list(makers(0, _warm(folder)))
        peaks = {name: (_peak(side, name, size, folder),) for name in names}
        yield Comparison(
            family=f"memory to {side}", setting=setting, baseline="cloudpickle", samples=peaks, unit="bytes"
        )


def _peak(side: str, name: str, size: int, folder: Path) -> float:
    return float(peak_memory(ready, side, name, size, folder, preload=["torch", "rebind", __name__]))


def ready(side: str, name: str, size: int, folder: Path) -> Work:
    """Give one contestant's work, in a process of its own, once it has been done with a little."""
    warm = _warm(folder)
    savers(KIB, warm)[name.partition(",")[0]]() if side in {"save", "load"} else None
    makers: dict[str, Makers] = {"dumps": dumpers, "save": savers, "load": loaders}
    (undumper(name, KIB, warm) if side == "loads" else makers[side](KIB, warm)[name])()
    return undumper(name, size, folder) if side == "loads" else makers[side](size, folder)[name]


def _warm(folder: Path) -> Path:
    warm = folder / "warm"
    warm.mkdir(exist_ok=True)
    return warm
