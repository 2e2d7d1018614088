"""The live bar of trainings and of trials: one look, on the error stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def live_bar() -> Progress:
    """Make a bar that is drawn when it is updated, and shows the `told` of a task after its time."""
    import os

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        console=Console(stderr=True, color_system=None if os.environ.get("NO_COLOR") else "auto"),
        auto_refresh=False,
    )
