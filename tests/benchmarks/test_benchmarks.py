"""The benchmarks run, and their page says what was measured. No time decides whether a test passes."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "trials")]

from harness.page import page  # noqa: E402
from harness.record import Comparison, Place, Promise, Record, Report  # noqa: E402
from harness.turns import take_turns, timed  # noqa: E402
from harness.wording import amount, verdict  # noqa: E402
from trial_processes import marked_processes, wait_until_gone  # noqa: E402

CHEAP = ("recording", "reinitialisation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the quick form of the cheap ones writes."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, str(ROOT / "benchmarks" / "run_all.py"), "--quick"]
    command += [f"--only={name}" for name in CHEAP]
    command += ["--page", str(folder / "figures.md"), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def record(folder):
    return Record.model_validate_json((folder / "figures" / "record.json").read_bytes())


def test_the_quick_run_records_every_contestant_round_by_round(record):
    """The samples are positive, and as many as the rounds, which are the same for all who never sat out."""
    assert record.quick
    assert tuple(report.name for report in record.reports) == CHEAP
    for report in record.reports:
        assert report.comparisons
        for comparison in report.comparisons:
            assert comparison.baseline in comparison.samples
            assert {len(samples) for samples in comparison.samples.values()} == {3}
            assert all(one > 0 for samples in comparison.samples.values() for one in samples)


def test_each_promise_is_of_a_contestant_that_there_is(record):
    """A promise whose family no comparison has would never be measured."""
    for report in record.reports:
        families = {each.family: set(each.samples) for each in report.comparisons}
        for promise in report.promises:
            assert promise.of.contestant in families[promise.of.family]
            assert promise.to is None or promise.to.family in families


def test_what_is_not_installed_is_told_to_be_left_out(record, folder):
    text = (folder / "figures.md").read_text()
    for report in record.reports:
        named = " ".join(name for each in report.comparisons for name in each.samples).lower()
        for peer in report.left_out:
            assert peer not in named
            assert f"{peer} is not installed, and was left out" in text
        assert "fiddle" in named or "fiddle" in report.left_out or report.name != "recording"


def test_the_page_has_a_plot_and_a_row_for_everything_that_was_recorded(record, folder):
    """The medians on the page are those of the record, and each plot is an SVG file beside it."""
    text = (folder / "figures.md").read_text()
    assert text == page(record, "figures")
    for report in record.reports:
        assert f"](figures/{report.name}.svg)" in text
        assert "<svg" in (folder / "figures" / f"{report.name}.svg").read_text()
        for comparison in report.comparisons:
            for name in comparison.samples:
                assert re.search(
                    rf"\| \W*{re.escape(name)}\W* \| {amount(comparison.median(name), 'seconds')} ", text
                )


def test_the_documentations_page_is_what_its_record_gives():
    """Nobody has typed a figure into it."""
    record = Record.model_validate_json((ROOT / "docs" / "benchmarks" / "record.json").read_bytes())
    assert not record.quick
    assert (ROOT / "docs" / "benchmarks.md").read_text() == page(record, "benchmarks")
    assert {report.name for report in record.reports} == {
        path.stem for path in (ROOT / "docs" / "benchmarks").glob("*.svg")
    }


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="its processes are found by /proc")
def test_a_run_that_is_ended_takes_its_processes_along(tmp_path):
    """The benchmark is a process of its own, and starts workers."""
    before = marked_processes()
    command = [sys.executable, str(ROOT / "benchmarks" / "run_all.py"), "--quick", "--only=growth"]
    with subprocess.Popen([*command, "--folder", str(tmp_path)], stdout=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 60
        while len(marked_processes() - before) <= 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(marked_processes() - before) > 2
        run.terminate()
        assert run.wait(30) == 143
    assert not wait_until_gone(marked_processes() - before, seconds=30)
    assert not list(tmp_path.iterdir())


def report_of(*comparisons, promises=()):
    return Report(
        name="some",
        title="Some",
        about="",
        comparisons=comparisons,
        promises=promises,
        left_out=(),
        seconds=0,
    )


def test_a_ratio_is_that_of_the_same_round():
    """Noise that both meet leaves no trace in it; who sat out has fewer ratios."""
    comparison = Comparison(
        family="f", baseline="a", samples={"a": (1.0, 10.0, 2.0), "b": (2.0, 20.0, 4.0), "c": (3.0,)}
    )
    ratio = comparison.ratio("b")
    assert (ratio.least, ratio.lower_quartile, ratio.median, ratio.upper_quartile, ratio.most) == (2,) * 5
    assert comparison.ratio("c").median == 3
    assert comparison.ratio("d") is None


@pytest.mark.parametrize(("limit", "standing"), [(2.0, "holds"), (1.99, "missed")])
def test_a_promise_holds_up_to_its_limit(limit, standing):
    """Within a comparison by the ratios of its rounds, between two by their medians, alone by the figure."""
    of, to = Place(family="f", contestant="b"), Place(family="f", contestant="a")
    other = Place(family="f", contestant="a", setting="s")
    promises = [
        Promise(says="", of=of, to=to, limit=limit),
        Promise(says="", of=of, to=other, limit=limit),
        Promise(says="", of=of, limit=limit),
    ]
    report = report_of(
        Comparison(family="f", baseline="a", samples={"a": (1, 1), "b": (2, 2)}),
        Comparison(family="f", setting="s", baseline="a", samples={"a": (1, 1)}),
    )
    assert [verdict(report, each)[1] for each in promises] == [standing] * 3
    absent = Promise(says="", of=of, to=Place(family="f", contestant="nobody"), limit=limit)
    assert verdict(report, absent) == ("", "not measured")


def test_contestants_take_turns_and_each_begins_as_often():
    """The first of a round changes; who is out of patience sits out after two rounds."""
    calls = []

    def contestant(name, seconds):
        def run():
            calls.append(name)
            return seconds

        return run

    found = take_turns({"a": contestant("a", 1.0), "b": contestant("b", 9.0)}, 5, patience=10, warm_up=0)
    assert found == {"a": (1.0,) * 5, "b": (9.0,) * 2}
    assert calls == list("abbaaaa")


def test_what_is_done_before_is_outside_of_the_time():
    clock = iter([100.0, 103.0])
    order = []
    once = timed(
        lambda: order.append("work"), clock=lambda: next(clock), before=lambda: order.append("before")
    )
    assert once() == 3.0
    assert order == ["before", "work"]


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0181, "seconds", "18.1 ms"),
        (1.0, "seconds", "1.00 s"),
        (4.2e-6, "seconds", "4.20 µs"),
        (0, "seconds", "0 µs"),
        (123.4, "seconds", "123 s"),
        (3 << 29, "bytes", "1.50 GiB"),
        (512, "bytes", "512 B"),
    ],
)
def test_figures_have_three_digits_and_the_unit_that_fits(value, unit, words):
    assert amount(value, unit) == words


def test_a_record_comes_back_from_json_as_it_was(record):
    assert Record.model_validate(json.loads(record.model_dump_json())) == record
