"""All benchmarks in one run: rebind beside what people use, each benchmark in a process of its own.

    make bench                                          # everything, and docs/benchmarks.md from it
    python benchmarks/run_all.py --only container       # one of them, printed

Ratios are those of paired rounds: median, quartiles, min and max.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from harness.benchmark import NAMES, Run, run_benchmark
from harness.machine import this_machine
from harness.page import page
from harness.plot import draw
from harness.record import Record, Report
from harness.terminal import show_promises
from rich.console import Console

_HERE = Path(__file__).parent


def main() -> int:
    """Run, print, write the page; 1 if a benchmark failed, or with `--check` if a promise is missed."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 120)
    if options.report:
        report = run_benchmark(options.only[0], Run(options.quick, options.folder), console)
        options.report.write_text(report.model_dump_json(), encoding="utf-8")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    machine = this_machine()
    reports = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in options.only or NAMES:
            console.rule(name)
            report = _in_its_own_process(name, Path(folder), quick=options.quick)
            if report is None:
                return 1
            show_promises(console, report)
            console.print(f"{'':>12}  in {report.seconds:.0f} s")
            reports.append(report)
            if options.page:  # a run that is cut short leaves what it has
                write(Record(machine=machine, quick=options.quick, reports=tuple(reports)), options.page)
    kept = [report.kept(promise) for report in reports for promise in report.promises]
    missed = sum(each is not None and not each[1] for each in kept)
    console.print(f"\n{len(kept)} promises: {missed} missed, {kept.count(None)} not measured")
    return int(options.check and missed > 0)


def write(record: Record, file: Path) -> None:
    """Write the page, and beside it a folder of its name with the record and the last report's plot."""
    folder = file.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    draw(record.reports[-1], folder / f"{record.reports[-1].name}.svg")
    file.write_text(page(record, folder.name), encoding="utf-8")


def _in_its_own_process(name: str, folder: Path, *, quick: bool) -> Report | None:
    report, noise = folder / f"{name}.json", folder / f"{name}.log"
    command = [sys.executable, str(_HERE / "run_all.py"), "--only", name]
    command += ["--folder", str(folder), "--report", str(report), *(["--quick"] if quick else [])]
    # Worker processes of every kind find the benchmark's functions, and the examples, by this.
    places = [str(_HERE), str(_HERE.parent / "examples"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    with noise.open("wb") as log:  # what the libraries say
        process = subprocess.Popen(command, env=environment, stderr=log, start_new_session=True)  # noqa: S603 - our own script
        try:
            failed = process.wait()
        finally:  # what it started, and has not ended, goes with it
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
    if failed:
        sys.stderr.write(noise.read_text(encoding="utf-8", errors="replace"))
        sys.stderr.write(f"{name} failed\n")
        return None
    return Report.model_validate_json(report.read_bytes())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=NAMES, help="one benchmark; may be given again")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats: to see that all runs")
    parser.add_argument("--folder", type=Path, help="where to write files; among temporary files otherwise")
    parser.add_argument(
        "--page", type=Path, help="a page to write, with plots and record in a folder beside it"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if a promise is missed")
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)  # run one, here, and write this file
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
