"""The command line: `rebind inspect`, `verify`, `diff`, `run`, `keygen` and `demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code; see `outcomes`.

    Args:
        arguments: What follows `rebind` on the command line; that of this process, if not given.

    Raises:
        SystemExit: With 2 for a wrong usage, and with 0 for `--help` and `--version`.
    """
    from .arguments import parser
    from .outcomes import outcome

    options = parser().parse_args(arguments)
    return outcome(lambda: int(options.command(options)))
