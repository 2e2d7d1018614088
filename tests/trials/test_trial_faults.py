"""Faults of the worker's surroundings: memory, modules, versions; and trials that nobody wants any more."""

from __future__ import annotations

import logging
import resource
import sys
import types
from pathlib import Path

import pytest
import torch
import trial_material as material
from trial_material import Net, make_evaluator
from trial_processes import marked_processes, wait_until_gone

import rebind
from rebind.runtime.trials.results import TrialResult
from rebind.runtime.trials.scoreboard import Marker, Scoreboard
from rebind.runtime.trials.trial_logging import trial_named


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_behind():
    """After the last test only: workers that some tests kill are replaced, and serve the next ones."""
    before = marked_processes()
    yield
    assert not wait_until_gone(marked_processes() - before, seconds=5)


@pytest.fixture(scope="module")
def evaluator():
    return make_evaluator()


@pytest.fixture(scope="module")
def pool():
    with rebind.LocalPool(workers=1) as pool:
        yield pool


def run(evaluator, pool, task, **more):
    (result,) = rebind.run_trials(evaluator, [rebind.Trial(model=Net, name="it", task=task)], pool, **more)
    return result


def eats_memory(binding):
    """Meet the limit of this process, for real, and leave it as it was."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), limits[1]))
    try:
        return len(bytearray(1 << 30))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def eats_device_memory(binding):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB")


def eats_torch_memory(binding):
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), limits[1]))
    try:
        return torch.empty(1 << 28).sum()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("task", [eats_memory, eats_torch_memory, eats_device_memory])
def test_a_trial_out_of_memory_is_told_as_such(evaluator, pool, task):
    """Python's memory, torch's and a device's; the worker lives on."""
    result = run(evaluator, pool, task)
    assert type(result.error) is rebind.TrialMemoryError
    assert "fewer workers" in str(result.error)
    assert run(evaluator, pool, rebind.evaluate).error is None


def test_a_module_that_the_worker_lacks_is_told_by_name(evaluator, monkeypatch, pool):
    """The trial's error, before anything of it ran."""
    module = types.ModuleType("only_here")
    exec("def task(binding): return 1.0", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)
    result = run(evaluator, pool, module.task)
    assert type(result.error) is rebind.WorkerEnvironmentError
    assert "only_here" in str(result.error)
    assert "same Python" in str(result.error)


@pytest.mark.parametrize("library", ["python", "torch"])
def test_a_worker_with_another_python_or_torch_is_told_and_nothing_is_unpickled(
    evaluator, monkeypatch, pool, library
):
    """As on a cluster whose nodes were set up at different times."""
    from rebind.serialization import environment, header, manifest, writing

    real = environment.current_versions()
    other = {**real, library: {"python": "3.19.0", "torch": "1.2.3"}[library]}
    for place in (environment, header, manifest, writing):
        if hasattr(place, "current_versions"):
            monkeypatch.setattr(place, "current_versions", lambda: other)
    from rebind.serialization import drafting

    if hasattr(drafting, "current_versions"):
        monkeypatch.setattr(drafting, "current_versions", lambda: other)
    result = run(evaluator, pool, lambda binding: 1.0)
    assert type(result.error) is rebind.WorkerEnvironmentError
    assert other[library] in str(result.error)


def test_trials_that_wait_or_run_can_be_cancelled(evaluator, pool):
    """Each gives its error, the others their results, and the pool goes on."""
    trials = [
        rebind.Trial(model=Net, name="quick", task=rebind.evaluate),
        rebind.Trial(model=Net, name="hangs", task=material.hangs),
        rebind.Trial(model=Net, name="waits", task=rebind.evaluate),
        rebind.Trial(model=Net, name="waits too", task=rebind.evaluate),
        rebind.Trial(model=Net, name="later", task=rebind.evaluate),
    ]
    results = rebind.run_trials(evaluator, trials, pool)
    assert next(results).name == "quick"
    results.cancel("quick", "hangs", "waits", "waits too")
    found = {result.name: type(result.error) for result in results}
    cancelled = dict.fromkeys(["hangs", "waits", "waits too"], rebind.TrialCancelledError)
    assert found == {**cancelled, "later": type(None)}
    with pytest.raises(KeyError, match="no trial"):
        results.cancel("unknown")


def test_the_steps_of_a_running_trial_are_seen_by_the_parent(evaluator, pool):
    """Each step is marked on the page that the parent reads."""
    board = Scoreboard()
    page = Marker(board.path)
    assert board.read(3) == ""
    page.mark(3, 7, 20)
    assert board.read(3) == "step 7/20"
    page.mark(3 + 512, 1, None)
    assert board.read(3) == "", "the line belongs to another trial by now"
    assert board.read(3 + 512) == "step 1"
    board.close()
    Marker("/nowhere/page").mark(0, 1, None)


def watches(binding):
    """Train, and read this trial's own line as the parent would."""
    import gc

    gc.unfreeze()  # what a new worker has before its first job is not listed else
    marks = [thing for thing in gc.get_objects() if isinstance(thing, Marker)]
    binding.train(max_steps=4)
    return [list(mark._page[:24]) for mark in marks if mark._page]


def test_training_marks_its_steps(evaluator, pool):
    """The binding's own events are what is marked."""
    result = run(evaluator, pool, watches)
    assert result.error is None, repr(result.error.__cause__)
    (page,) = result.value
    slot, step, most = (int.from_bytes(page[n : n + 8], sys.byteorder) for n in (0, 8, 16))
    assert (slot, step, most) == (1, 4, 4)


def test_records_that_a_trial_logs_carry_its_name(caplog):
    """Also those of libraries; afterwards logging is as it was."""
    before = logging.getLogRecordFactory(), logging.lastResort
    with trial_named("narrow"):
        logging.getLogger("library").warning("careful")
    assert [record.trial for record in caplog.records] == ["narrow"]
    assert (logging.getLogRecordFactory(), logging.lastResort) == before
    assert TrialResult(name="x").error is None


def test_a_trial_that_silences_logging_silences_itself_alone(capsys, monkeypatch):
    """The handler for a process that sets up no logging is each trial's own."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with trial_named("quiet"):
        logging.lastResort.setLevel(logging.CRITICAL)
        logging.getLogger("library").error("not this")
    with trial_named("other"):
        logging.getLogger("library").warning("careful")
    assert capsys.readouterr().err == "[other] library: careful\n"
