"""Colour on a terminal, and plain text elsewhere."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from rich.console import RenderableType


def show(what: RenderableType, stream: TextIO | None = None) -> None:
    """Write something to a stream, by default standard output, with colour if that is a terminal.

    `NO_COLOR` in the environment, unless it is empty, and a dumb terminal take the colours away;
    `FORCE_COLOR` gives them to a pipe as well.

    Args:
        what: A text, which is never wrapped, or a table, which a terminal's width limits.
        stream: Where to.
    """
    from rich.console import Console
    from rich.text import Text

    stream = sys.stdout if stream is None else stream
    # What reads a pipe wants whole words, and a pipe has no width.
    console = Console(
        file=stream,
        width=None if stream.isatty() else 1000,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        markup=False,
        highlight=False,
        emoji=False,
    )
    # By `print`, which tells of a closed pipe: rich would end the process there.
    with console.capture() as captured:
        console.print(what, soft_wrap=isinstance(what, Text))
    print(captured.get(), end="", file=stream)


def show_text(text: str, styles: Mapping[str, str], stream: TextIO | None = None) -> None:
    """Write a text whose parts have a style each.

    Args:
        text: What to write, without terminal codes or control characters of its own but line ends.
        styles: Rich's name of a style, by the regular expression of what has it.
        stream: Where to; standard output, if not given.
    """
    from rich.text import Text

    painted = Text(text)
    for expression, style in styles.items():
        painted.highlight_regex(expression, style)
    show(painted, stream)
