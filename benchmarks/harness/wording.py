"""Figures in words that are read quickly: three digits and the unit that fits."""

from __future__ import annotations

from .record import Comparison, Promise, Report, Unit

_SCALES: dict[Unit, list[tuple[float, str]]] = {
    "seconds": [(1, "s"), (1e-3, "ms"), (1e-6, "µs")],
    "bytes": [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")],
}


def amount(value: float, unit: Unit) -> str:
    """Give a time or a size: `18.1 ms`, `0.72 MiB`."""
    for scale, name in _SCALES[unit]:
        if abs(value) >= 0.9995 * scale:
            return f"{_three_digits(value / scale)} {name}"
    return f"{_three_digits(value / scale)} {name}" if value else f"0 {name}"


def times(ratio: float) -> str:
    """Give a ratio: two digits after the point where 1 is near."""
    return f"{ratio:.3f}" if 0.9 <= ratio < 1.1 else _three_digits(ratio)


def ratio_cells(comparison: Comparison, name: str) -> list[str]:
    """Give the cells of a table: a ratio's median, quartiles, least and most."""
    ratio = comparison.ratio(name)
    if ratio is None or (name == comparison.baseline and len(comparison.samples) == 1):
        return ["", "", "", ""]
    if name == comparison.baseline:
        return ["1", "", "", ""]
    quartiles = f"{times(ratio.lower_quartile)} to {times(ratio.upper_quartile)}"
    return [times(ratio.median), quartiles, times(ratio.least), times(ratio.most)]


def verdict(report: Report, promise: Promise) -> tuple[str, str]:
    """Give what was measured of a promise, and whether it holds."""
    kept = report.kept(promise)
    if kept is None:
        return "", "not measured"
    figure, holds = kept
    unit = report.unit(promise)
    return times(figure) if unit is None else amount(figure, unit), "holds" if holds else "missed"


def _three_digits(value: float) -> str:
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    if 0 < abs(value) < 0.0995:
        return f"{value:.2g}"
    return f"{value:,.{digits}f}"
