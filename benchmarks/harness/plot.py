"""The plots of a report: one SVG file with a panel for each family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .record import Comparison, Report, Unit
from .wording import amount

_OURS = ["#c2410c", "#ea580c", "#f59e0b", "#fbbf24"]
_THEIRS = ["#1d4ed8", "#0d9488", "#7c3aed", "#475569", "#be185d", "#65a30d", "#0891b2", "#a16207", "#94a3b8"]
_FAR = 20  # times: from there on, the scale is logarithmic
_MARKERS = "osD^vPX*<>"


def draw(report: Report, file: Path) -> None:
    """Draw lines over the sizes where a family has sizes, bars elsewhere: medians, with min and max."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    families = list(report.families())
    heights = [_height(comparisons) for _, comparisons in families]
    # The same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": report.name, "font.size": 9, "axes.titlesize": 10}):
        figure = Figure(figsize=(8, sum(heights)), layout="constrained", facecolor="white")
        panels = figure.subplots(len(families), 1, squeeze=False, height_ratios=heights)[:, 0]
        for panel, (family, comparisons) in zip(panels, families, strict=True):
            panel.set_title(family, loc="left", fontweight="bold")
            (_lines if _has_sizes(comparisons) else _bars)(panel, comparisons)
            panel.spines[["top", "right"]].set_visible(False)
        figure.savefig(file, format="svg", metadata={"Date": None})


def _has_sizes(comparisons: list[Comparison]) -> bool:
    return sum(each.size is not None for each in comparisons) > 1


def _height(comparisons: list[Comparison]) -> float:
    if _has_sizes(comparisons):
        return 3.4
    return 0.9 + 0.24 * sum(len(each.samples) for each in comparisons)


def _colours(comparisons: list[Comparison]) -> dict[str, str]:
    names = dict.fromkeys(name for each in comparisons for name in each.samples)
    ours, theirs = iter(_OURS * 4), iter(_THEIRS * 4)
    return {name: next(ours if name.startswith("rebind") else theirs) for name in names}


def _axis(axis: Any, unit: Unit) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: amount(value, unit)))
    axis.set_minor_formatter(NullFormatter())


def _lines(panel: Any, comparisons: list[Comparison]) -> None:
    sized = [each for each in comparisons if each.size is not None]
    for index, (name, colour) in enumerate(_colours(sized).items()):
        here = [each for each in sized if each.samples.get(name)]
        sizes = [each.size for each in here]
        panel.plot(
            sizes,
            [each.median(name) for each in here],
            color=colour,
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=4,
            label=name,
            linewidth=2 if name.startswith("rebind") else 1.2,
        )
        low, high = ([edge(each.samples[name]) for each in here] for edge in (min, max))
        panel.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
    medians = [each.median(name) for each in sized for name in each.samples]
    panel.set_xscale("log")
    # What hardly differs would look as if it did on a scale that begins just below it.
    if max(medians) > _FAR * min(medians) > 0:
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)
    panel.set_xticks([each.size for each in sized], [each.setting for each in sized], fontsize=8)
    panel.minorticks_off()
    _axis(panel.yaxis, sized[0].unit)
    panel.grid(axis="y", alpha=0.25)
    panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _bars(panel: Any, comparisons: list[Comparison]) -> None:
    colours = _colours(comparisons)
    rows = [(each, name) for each in comparisons for name in each.samples]
    values = [each.median(name) for each, name in rows]
    labels = [f"{name}, {each.setting}" if each.setting else name for each, name in rows]
    spread = [
        [value - min(each.samples[name]) for value, (each, name) in zip(values, rows, strict=True)],
        [max(each.samples[name]) - value for value, (each, name) in zip(values, rows, strict=True)],
    ]
    unit = comparisons[0].unit
    bars = panel.barh(labels, values, xerr=spread, color=[colours[name] for _, name in rows], height=0.7)
    bars.errorbar.lines[2][0].set(linewidth=0.8, color="#111827")
    if max(values) > _FAR * min(values) > 0:
        panel.set_xscale("log")
    # Beyond the whisker, so that the figure is not struck through.
    for row, (value, beyond) in enumerate(zip(values, spread[1], strict=True)):
        panel.annotate(
            amount(value, unit),
            (value + beyond, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            size=8,
        )
    panel.margins(x=0.15)
    panel.invert_yaxis()
    _axis(panel.xaxis, unit)
