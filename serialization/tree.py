"""A tree of lines, drawn in plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator


class Branch(NamedTuple):
    """A line with lines under it."""

    line: str
    below: tuple[Tree, ...]


Tree: TypeAlias = "str | Branch"


def draw(tree: Tree) -> str:
    """The tree as text.

    >>> print(draw(Branch("optimizers", ("SGD", Branch("Adam", ("lr: 0.1",))))))
    optimizers
    ├── SGD
    └── Adam
        └── lr: 0.1
    """
    return "\n".join(_lines(tree))


def readable_bytes(count: int) -> str:
    """A number of bytes for people.

    >>> readable_bytes(640), readable_bytes(1536), readable_bytes(5 << 30)
    ('640 B', '1.5 KiB', '5.0 GiB')
    """
    if count < 1024:
        return f"{count} B"
    size, units = count / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.1f} {units[0]}"


def _lines(tree: Tree) -> Iterator[str]:
    if isinstance(tree, str):
        yield printable(tree)
        return
    yield printable(tree.line)
    for number, child in enumerate(tree.below, start=1):
        last = number == len(tree.below)
        first, *rest = _lines(child)
        yield f"{'└── ' if last else '├── '}{first}"
        yield from (f"{'    ' if last else '│   '}{line}" for line in rest)


def printable(text: str) -> str:
    """The text with terminal codes and line ends shown, not obeyed."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
