from __future__ import annotations

import functools
import io
import sys

import pytest
from pydantic import ValidationError
from torch import nn
from trial_material import Net, evaluate_only

import rebind
from rebind.evaluator_schema.errors import TrialError, TrialFailedError
from rebind.runtime.trials.progress import showing
from rebind.runtime.trials.results import Results, TrialResult
from rebind.runtime.trials.running import run_trials


def results_of(*results):
    def source():
        yield from results

    return Results(source(), [result.name for result in results])


DONE = [
    TrialResult(name="a", score=0.5, info={"sparsity": 0.1}),
    TrialResult(name="b", error=TrialFailedError("no luck")),
    TrialResult(name="c", score=0.75, info={"sparsity": 0.2, "score": 3}),
    TrialResult(name="d", score=float("nan")),
    TrialResult(name="e", value=[1]),
]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": 3}, "torch.nn.Module or a callable without arguments"),
        ({"model": nn.Linear}, "functools.partial"),
        ({"model": Net, "task": 3}, "callable"),
        ({"model": Net, "task": lambda: None}, "task is called as"),
        ({"model": Net, "task": evaluate_only, "max_steps": 3}, "max_steps cannot be passed on"),
        ({"model": Net, "max_steps": -1}, "greater than or equal to 0"),
        ({"model": Net, "max_epochs": True}, "valid integer"),
        ({"model": Net, "timeout": 0}, "greater than 0"),
        ({"model": Net, "name": ""}, "at least 1 character"),
        ({"model": Net, "missing": "maybe"}, "'raise' or 'ignore'"),
        ({"model": Net, "steps": 1}, "Extra inputs"),
        ({}, "Field required"),
    ],
)
def test_a_trial_of_no_use_is_refused_when_it_is_created(given, told):
    """The error says which field, what was found and what fits."""
    with pytest.raises(ValidationError, match=told):
        rebind.Trial(**given)


def test_a_task_gets_the_limits_that_it_names():
    """Limits reach the task, and a timeout only where it has a parameter of that name."""
    names_all = rebind.Trial(model=Net, task=lambda binding, max_steps, timeout: None, max_steps=0, timeout=3)
    assert names_all.arguments(3.0) == {"max_steps": 0, "timeout": 3.0}
    takes_any = rebind.Trial(model=Net, task=lambda binding, **more: None, max_epochs=2, timeout=3)
    assert takes_any.arguments(3.0) == {"max_epochs": 2}
    assert rebind.Trial(model=Net, max_steps=5).arguments(None) == {"max_steps": 5}


def test_a_trial_is_a_value():
    """Frozen, and shown without the whole model in it."""
    trial = rebind.Trial(model=nn.Linear(1000, 1000), name="a")
    with pytest.raises(ValidationError):
        trial.name = "b"
    assert "name='a'" in repr(trial)
    assert len(repr(trial)) < 120


def test_trials_get_names_that_tell_them_apart():
    """Given names stay, the others are numbered by place."""
    trials = [rebind.Trial(model=Net), rebind.Trial(model=Net, name="trial-2")]
    results = run_trials(None, [*trials, rebind.Trial(model=functools.partial(Net, 3))])
    assert results.names == ("trial-0", "trial-2", "trial-2'")


def test_two_trials_of_one_name_are_refused():
    """A name seeds a trial and finds its result."""
    twice = [rebind.Trial(model=Net, name="same"), rebind.Trial(model=Net, name="same")]
    with pytest.raises(TrialError, match="'same'"):
        run_trials(None, twice)


def test_all_arguments_of_no_use_are_told_at_once():
    """One error names them all."""
    with pytest.raises(TrialError) as caught:
        run_trials(None, [Net()], pool=rebind.LocalPool, retries=-1, timeout=0)
    for told in ("trials[0]", "Trial(model=...)", "pool is", "retries is -1", "timeout is 0"):
        assert told in str(caught.value)


def test_no_trials_give_no_results():
    """Nothing to do is no error, and starts nothing."""
    results = run_trials(None, [])
    assert list(results) == []
    assert results.best is None


def test_results_tell_the_best_and_the_failed():
    """Errors and scores that are no numbers are never the best."""
    results = results_of(*DONE)
    assert "0 of 5" in repr(results)
    assert results.best.name == "c"
    assert [result.name for result in results.failed] == ["b"]
    assert repr(results) == "Results(5 of 5 trials finished, 1 failed, best 0.75 by 'c')"


def test_results_tell_of_the_trials_so_far():
    """A summary in the midst of a loop neither waits for the rest nor takes it from the loop."""
    results = results_of(*DONE)
    bests = [results.best.name for _ in results]
    assert bests == ["a", "a", "c", "c", "c"]


def test_closed_results_yield_nothing_more():
    """What came before stays."""
    with results_of(*DONE) as results:
        next(results)
    assert list(results) == []
    assert [result.name for result in results.finished] == ["a"]


def test_a_frame_has_a_row_per_trial_in_the_order_given():
    """Also where they finished in another order; entries of info are columns."""
    results = Results((result for result in reversed(DONE)), [result.name for result in DONE])
    frame = results.to_frame()
    assert list(frame["name"]) == list("abcde")
    assert list(frame.columns) == [
        "name",
        "score",
        "value",
        "sparsity",
        "info.score",
        "seconds",
        "attempts",
        "process_id",
        "error",
    ]
    assert frame["sparsity"].iloc[2] == 0.2


def test_a_plot_shows_the_score_against_a_column(tmp_path):
    """Points without a score are left out; the file is written where asked for."""
    results = results_of(*DONE)
    figure = results.plot("sparsity", tmp_path / "plot.png")
    (axes,) = figure.axes
    assert axes.collections[0].get_offsets().tolist() == [[0.1, 0.5], [0.2, 0.75]]
    assert (tmp_path / "plot.png").stat().st_size > 1000
    with pytest.raises(KeyError, match="there are: name, score"):
        results.plot("width")


@pytest.mark.parametrize(
    ("module", "call"),
    [("pandas", lambda r: r.to_frame()), ("matplotlib.figure", lambda r: r.plot("x"))],
)
def test_a_missing_library_is_told_with_the_extra_to_install(monkeypatch, module, call):
    """pip install 'rebind[...]'."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'rebind\[(frame|plot)\]'"):
        call(results_of(*DONE))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, progress):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with showing(len(DONE), progress) as display:
        for result in DONE:
            display.tick(2)
            display.finished(result)
    return stream.getvalue()


def test_progress_is_quiet_unless_asked_for_or_on_a_terminal(monkeypatch):
    """Logs get no bar."""
    assert shown(monkeypatch, io.StringIO(), None) == ""
    assert shown(monkeypatch, Terminal(), progress=False) == ""


def test_progress_is_a_line_per_trial_where_there_is_no_terminal(monkeypatch):
    """Count, name and score, or what went wrong."""
    lines = shown(monkeypatch, io.StringIO(), progress=True).splitlines()
    assert lines[0] == "[1/5] a: score 0.5 (0.0 s)"
    assert lines[1] == "[2/5] b: no luck (0.0 s)"


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    """Trials done, running and failed, and the best score."""
    told = shown(monkeypatch, Terminal(), None)
    for part in ("5/5", "2 running", "1 failed", "best 0.75 (c)"):
        assert part in told
