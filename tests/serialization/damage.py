"""Damage files in every way, count what becomes of it, and print a table: `python damage.py`.

A file is opened unsigned with `trusted=True`, signed with its key, and signed with `trusted=True`. No damaged
one may open, raise anything but a `RebindError`, or get as far as to unpickle its canary. Files that nobody
damaged come first: all of them must open, and their canaries sing.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from canary import SUNG, Singer
from rich.console import Console
from rich.table import Table

from rebind import RebindError
from rebind.serialization import SigningKey, inspect, pack, unpack

KEY = SigningKey("test", b"k" * 32)
OPENINGS = {
    "unsigned, trusted": (None, {"trusted": True}),
    "signed, with its key": (KEY, {"key": KEY}),
    "signed, trusted": (KEY, {"trusted": True}),
}


@dataclass
class Count:
    """What became of the files that were damaged in one way."""

    tried: int = 0
    opened: int = 0
    strange: list[str] = field(default_factory=list)
    sung: int = 0
    slowest: float = 0.0

    @property
    def is_clean(self):
        return self.tried and not (self.opened or self.strange or self.sung)


def file_of(size, key):
    """A file with a canary in front of everything, and tensors up to about this size."""
    tensors = [torch.randn(100 + i) for i in range(size // 500)]
    return pack([Singer(), *tensors, torch.arange(3)], kind="test", key=key)


def flips(data, places, chance):
    """The file with one bit of one byte changed, for each place."""
    changed = bytearray(data)
    for place in places:
        bit = 1 << chance.randrange(8)
        changed[place] ^= bit
        yield bytes(changed)
        changed[place] ^= bit


def splices(first, second, number, chance):
    """A piece of one file in the place of a piece of the other, of its length or of another one."""
    for _ in range(number):
        start, stop = sorted(chance.randrange(len(first) + 1) for _ in range(2))
        shift = chance.choice((0, 0, chance.randrange(-64, 65)))
        spliced = first[:start] + second[max(0, start + shift) : max(0, stop + shift)] + first[stop:]
        if spliced not in (first, second):
            yield spliced


def unharmed_headers(key):
    """What `hostile_headers` are made from, put together again in the same way."""
    import test_container_headers as headers

    yield headers.rebuilt(*headers.parts([Singer(), torch.arange(16)], key), key)


def hostile_headers(key):
    """Headers by someone who knows the format and has the key, around a canary.

    Digests and seals fit, and so do signatures, except where their absence is what is hostile.
    """
    import test_container_headers as headers

    value = [Singer(), torch.arange(16)]
    for way, change in headers.HOSTILE.items():
        header, manifest, data = headers.parts(value, key)
        change(header, manifest)
        yield headers.rebuilt(header, manifest, data, None if way in headers.LACK_A_SIGNATURE else key)
    for layout in headers.LAYOUTS.values():
        yield headers.with_layout(layout, value, key)


def tried(files, arguments):
    """Open each file, and count what happens."""
    count = Count()
    for data in files:
        count.tried += 1
        SUNG.clear()
        started = time.perf_counter()
        try:
            unpack(data, **arguments)
            count.opened += 1
        except RebindError:
            pass
        except BaseException as error:
            count.strange.append(repr(error))
        with_inspect(data, count)
        count.slowest = max(count.slowest, time.perf_counter() - started)
        count.sung += len(SUNG)
    return count


def with_inspect(data, count):
    """Look at it as well: damage shows there, too, or nothing does."""
    try:
        inspect(data)
    except RebindError:
        pass
    except BaseException as error:
        count.strange.append(repr(error))


def counts(scale=1.0):
    """All ways of damage for all openings, a share of them; pairs of their names and a `Count`."""
    chance = random.Random(0)
    torch.manual_seed(0)
    for opening, (key, arguments) in OPENINGS.items():
        small, other, large = (file_of(size, key) for size in (0, 900, 60_000))
        unharmed = [small, other, large, *unharmed_headers(key)]
        count = tried(unharmed, arguments)
        if not len(unharmed) == count.opened == count.sung:
            raise RuntimeError(f"{opening}: files that nobody damaged give {count}")
        first = [place for place in range(min(8192, len(large))) if chance.random() < scale]
        anywhere = [chance.randrange(len(large)) for _ in range(int(10_000 * scale))]
        lengths = [length for length in range(len(small)) if chance.random() < scale]
        ways = {
            "every byte of the first 8 kB flipped": flips(large, first, chance),
            "random bytes flipped": flips(large, anywhere, chance),
            "every truncation of a small file": (small[:length] for length in lengths),
            "random splices of two files": splices(large, other, int(5000 * scale), chance),
            "splices of two small files": splices(small, other, int(5000 * scale), chance),
            "hostile headers, signed and sealed": hostile_headers(key),
        }
        for way, files in ways.items():
            yield opening, way, tried(files, arguments)


def main():
    """Print the table; the exit code tells whether everything was refused."""
    sys.path.append(str(Path(__file__).parent))
    console = Console()
    table = Table(title="Damaged files")
    for column in ("opening", "damage", "tried", "opened", "other errors", "canaries", "slowest"):
        table.add_column(column, justify="left" if column in {"opening", "damage"} else "right")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clean, total = True, 0
    for opening, way, count in counts():
        table.add_row(
            *(opening, way, f"{count.tried:,}", str(count.opened), str(len(count.strange)), str(count.sung)),
            f"{count.slowest * 1e3:.1f} ms",
        )
        clean, total = clean and count.is_clean, total + count.tried
        for strange in count.strange[:3]:
            console.print(strange)
    console.print(table)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    console.print(f"{total:,} files, each opened and inspected. Memory grew by {grown} MiB at most.")
    console.print("All were refused." if clean else "NOT ALL WERE REFUSED.")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
