"""A run as it is told in the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .record import Comparison, Report
from .wording import amount, ratio_cells, verdict

_STYLES = {"holds": "green", "missed": "bold red", "not measured": "dim"}


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print a table: a row for each contestant."""
    title = ", ".join(part for part in (comparison.family, comparison.setting) if part)
    title += f"; ratios to {comparison.baseline}" if len(comparison.samples) > 1 else ""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", min_width=36)
    for column in ("median", "ratio", "quartiles", "min", "max", "rounds"):
        table.add_column(column, justify="right")
    for name, samples in comparison.samples.items():
        cells = [amount(comparison.median(name), comparison.unit), *ratio_cells(comparison, name)]
        table.add_row(Text(name), *cells, str(len(samples)))
    console.print(table)


def show_promises(console: Console, report: Report) -> None:
    """Print what was promised, and how it stands; and who was left out."""
    for promise in report.promises:
        measured, standing = verdict(report, promise)
        line = Text(f"{standing:>12}", style=_STYLES[standing]) + Text(f"  {promise.says}")
        console.print(line + Text(f": {measured}" if measured else ""))
    for name in report.left_out:
        console.print(f"{'':>12}  {name} is not installed, and was left out")
