"""The page of the documentation, written wholly from the record of a run."""

from __future__ import annotations

from collections.abc import Iterator

from .record import Comparison, Machine, Record, Report
from .wording import amount, ratio_cells, verdict

_HEADER = """# Benchmarks

Written by `make bench` from the figures of one run, which are in [record.json](RECORD). Do not edit.

Everything is measured beside what people use for it. The contestants take turns, round by round, and what
they took in the same round is divided: whatever else the machine does happens to both. A table has the
median of a contestant's rounds, and of its ratios to the baseline the median, the quartiles, the least and
the most; below 1 is less than the baseline. Whiskers and bands of the plots go from the least to the most.
"""


def page(record: Record, plots: str) -> str:
    """Give the page in Markdown.

    Args:
        record: What was measured.
        plots: The folder of the plots, seen from the page.
    """
    parts = [_HEADER.replace("RECORD", f"{plots}/record.json"), *_machine(record.machine)]
    if record.quick:
        parts.append(
            "**This was the quick run, which only shows that everything runs: its figures mean nothing.**\n"
        )
    parts += ["## Targets\n", *_targets(record)]
    for report in record.reports:
        parts += _section(report, plots)
    return "\n".join(parts)


def _machine(machine: Machine) -> Iterator[str]:
    yield "## The machine\n"
    yield f"- {machine.cores} cores of {machine.processor}, {amount(machine.memory, 'bytes')} of memory"
    busy = machine.load > 0.25 * machine.cores
    note = "others used it, so that times are longer than they need be" if busy else "nobody else used it"
    yield f"- in the minute before the run, {machine.load} programs wanted a core: {note}"
    libraries = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    yield f"- {machine.system}, Python {machine.python}; {libraries}\n"


def _targets(record: Record) -> Iterator[str]:
    yield "| target | measured | |"
    yield "|---|---|---|"
    for report in record.reports:
        for promise in report.promises:
            measured, standing = verdict(report, promise)
            yield f"| {promise.says} | {measured} | {'**missed**' if standing == 'missed' else standing} |"
    yield ""


def _section(report: Report, plots: str) -> Iterator[str]:
    yield f"## {report.title}\n"
    yield f"{report.about}\n"
    yield f"![{report.title}]({plots}/{report.name}.svg)\n"
    for family, comparisons in report.families():
        yield from _table(family, comparisons)
    for promise in report.promises:
        measured, standing = verdict(report, promise)
        yield f"- **{standing}**: {promise.says}" + (f"; measured: {measured}" if measured else "")
    for name in report.left_out:
        yield f"- {name} is not installed, and was left out"
    yield ""


def _table(family: str, comparisons: list[Comparison]) -> Iterator[str]:
    settings = [""] if any(each.setting for each in comparisons) else []
    told = any(len(each.samples) > 1 for each in comparisons)
    yield f"**{family}**" + (f", ratios to {comparisons[0].baseline}" if told else "") + "\n"
    yield _row([*settings, "", "median", "ratio", "quartiles", "least", "most", "rounds"])
    yield "|---" * len(settings) + "|---" + "|--:" * 6 + "|"
    before: Comparison | None = None
    for each in comparisons:
        for name, samples in each.samples.items():
            first = [each.setting if each is not before else ""] if settings else []
            label = f"**{name}**" if name.startswith("rebind") else name
            cells = [amount(each.median(name), each.unit), *ratio_cells(each, name), str(len(samples))]
            yield _row([*first, label, *cells])
            before = each
    yield ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
