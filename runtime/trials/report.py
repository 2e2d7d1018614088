"""Results as a table and as a picture. pandas and matplotlib are imported when they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import pandas as pd
    from matplotlib.figure import Figure

    from .results import TrialResult

_LAST = ("seconds", "attempts", "process_id", "error")


def rows(results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """One flat mapping per result; an entry of `info` named like a field becomes `info.<name>`."""
    values = any(result.value is not None for result in results)
    return [_row(result, values=values) for result in results]


def to_frame(results: Sequence[TrialResult]) -> pd.DataFrame:
    """The results as a table."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "to_frame() makes a pandas table: install pandas with pip install 'rebind[frame]'"
        ) from error
    table = rows(results)
    columns = dict.fromkeys(name for row in table for name in row if name not in _LAST)
    return pd.DataFrame(table, columns=[*(columns or ("name", "score")), *_LAST])


def plot(results: Sequence[TrialResult], column: str, path: str | PathLike[str] | None = None) -> Figure:
    """The scores against a column of the table, each point with its trial's name."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot() draws with matplotlib: install it with pip install 'rebind[plot]'"
        ) from error
    table = [row for row in rows(results) if row["score"] is not None and row["error"] is None]
    known = dict.fromkeys(name for row in table for name in row)
    if column not in known:
        have = ", ".join(known) or "none, as no trial gave a score"
        raise KeyError(f"there is no column {column!r}; there are: {have}")
    points = [row for row in table if row.get(column) is not None]
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.scatter([row[column] for row in points], [row["score"] for row in points])
    for row in points:
        axes.annotate(
            row["name"],
            (row[column], row["score"]),
            textcoords="offset points",
            xytext=(4, 4),
            fontsize="small",
        )
    axes.set(xlabel=column, ylabel="score")
    axes.grid(visible=True, alpha=0.3)
    if path is not None:
        figure.savefig(path)
    return figure


def _row(result: TrialResult, *, values: bool) -> dict[str, Any]:
    own: dict[str, Any] = {"name": result.name, "score": result.score}
    if values:
        own["value"] = result.value
    last = {name: getattr(result, name) for name in _LAST}
    taken = own.keys() | last.keys()
    info = {f"info.{name}" if name in taken else str(name): value for name, value in result.info.items()}
    return own | info | last
