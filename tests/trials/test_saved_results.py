"""Results in a file: none is lost, none is run twice, none is believed that was changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import trial_material as material
from hypothesis import given
from hypothesis import strategies as st
from trial_material import Net, make_evaluator

import rebind
from rebind.evaluator_schema.errors import (
    CorruptedError,
    NotARebindFileError,
    TrialError,
    UntrustedPayloadError,
    WrongKeyError,
)
from rebind.runtime.trials.fingerprint import fingerprint
from rebind.runtime.trials.journal import Journal

KEY = rebind.SigningKey("results", b"k" * 32)


@pytest.fixture(scope="module")
def evaluator():
    return make_evaluator()


def counting(folder, binding):
    """Leave a trace of each call, and score."""
    count = len(list(folder.iterdir()))
    (folder / str(count)).touch()
    return binding.evaluate()


def run(evaluator, path, names, task=rebind.evaluate, **more):
    trials = [rebind.Trial(model=Net, name=name, task=task) for name in names]
    return rebind.run_trials(evaluator, trials, rebind.SerialPool(), file=path, **more)


def test_trials_that_have_finished_are_not_run_again(evaluator, tmp_path):
    """Their results come from the file and are what they were; the rest is run."""
    calls = tmp_path / "calls"
    calls.mkdir()
    task = partial(counting, calls)
    results = run(evaluator, tmp_path / "results", "abc", task)
    first = [next(results), next(results)]
    results.close()
    again = list(run(evaluator, tmp_path / "results", "abcd", task))
    assert again[:2] == first
    assert [result.name for result in again] == ["a", "b", "c", "d"]
    assert len(list(calls.iterdir())) == 4


def test_a_trial_with_an_error_is_run_again(evaluator, tmp_path):
    """What went wrong may have been mended; the file keeps the later result."""
    marker = tmp_path / "marker"

    def fails_once(binding):
        if not marker.exists():
            marker.touch()
            raise OSError("the disk was full")
        return 1.0

    path = tmp_path / "results"
    (failed,) = run(evaluator, path, "a", fails_once)
    assert isinstance(failed.error, rebind.TrialFailedError)
    assert [r.score for r in run(evaluator, path, "a", fails_once)] == [1.0]
    assert [r.score for r in run(evaluator, path, "a", fails_once)] == [1.0]


def test_values_and_weights_come_back_from_a_signed_file(evaluator, tmp_path):
    """Bit for bit; without the key, the file is not opened."""
    path = tmp_path / "results"
    (first,) = run(evaluator, path, "a", rebind.train_and_evaluate, state_dicts=True, key=KEY)
    (second,) = run(evaluator, path, "a", rebind.train_and_evaluate, state_dicts=True, key=KEY)
    assert all(torch.equal(weight, second.state_dict[name]) for name, weight in first.state_dict.items())
    other = rebind.SigningKey("results", b"j" * 32)
    for key in (None, other):
        with pytest.raises(WrongKeyError):
            run(evaluator, path, "a", rebind.train_and_evaluate, key=key).wait()


def test_pickled_results_of_an_unsigned_file_need_trust(evaluator, tmp_path):
    """Scores, texts and numbers do not: they are JSON."""
    path = tmp_path / "results"
    run(evaluator, path, "a", material.random_numbers).wait()
    assert run(evaluator, path, "a", material.random_numbers).wait().finished[0].value
    path = tmp_path / "others"
    run(evaluator, path, "a", state_dicts=True).wait()
    with pytest.raises(UntrustedPayloadError, match="trusted=True"):
        run(evaluator, path, "a").wait()
    assert run(evaluator, path, "a", trusted=True).wait().finished[0].state_dict


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seed": 1}, "seed"),
        ({"evaluator": True}, "evaluator"),
        ({"task": rebind.finetune_and_evaluate}, "task"),
    ],
)
def test_a_file_of_another_run_is_refused(evaluator, tmp_path, more, told):
    """The message says what differs, and the file stays as it is."""
    path = tmp_path / "results"
    run(evaluator, path, "a").wait()
    content = path.read_bytes()
    if more.pop("evaluator", False):
        evaluator = make_evaluator(dummy_input=torch.ones(1, 6))
    with pytest.raises(TrialError, match=told):
        run(evaluator, path, "a", **more).wait()
    assert path.read_bytes() == content


def test_a_file_in_use_is_refused(evaluator, tmp_path):
    """Two runs never write to one file."""
    results = run(evaluator, tmp_path / "results", "ab")
    next(results)
    with pytest.raises(TrialError, match="in use"):
        next(run(evaluator, tmp_path / "results", "ab"))
    results.close()


def test_a_file_of_something_else_is_left_alone(evaluator, tmp_path):
    """A typing mistake in the path costs nobody a file."""
    path = tmp_path / "precious"
    path.write_bytes(b"my only copy")
    with pytest.raises(NotARebindFileError):
        next(run(evaluator, path, "a"))
    assert path.read_bytes() == b"my only copy"


def written(path, records, key=None):
    path.unlink(missing_ok=True)
    with Journal(path, key) as journal:
        for record in records:
            journal.append(record)
    return path.read_bytes()


RECORDS = [b"first", b"", b"third, and longer", b"fourth"]


@pytest.mark.parametrize("key", [None, KEY])
def test_every_torn_end_is_cut_off_and_every_record_before_it_is_there(tmp_path, key):
    """Whatever byte the writer ended at; the journal goes on from there."""
    path = tmp_path / "journal"
    whole = written(path, RECORDS, key)
    ends = [len(written(path, RECORDS[:count], key)) for count in range(len(RECORDS) + 1)]
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        complete = max([n for n, size in enumerate(ends) if size <= end], default=0)
        with Journal(path, key) as journal:
            assert list(journal.read()) == RECORDS[:complete]
            journal.append(b"more")
        with Journal(path, key) as journal:
            assert list(journal.read()) == [*RECORDS[:complete], b"more"]


@pytest.mark.parametrize("key", [None, KEY])
def test_every_changed_byte_is_refused(tmp_path, key):
    """Also one in the length of the last record, which must not pass for a torn end."""
    path = tmp_path / "journal"
    whole = written(path, RECORDS, key)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 4
        path.write_bytes(changed)
        with (
            pytest.raises((CorruptedError, WrongKeyError, NotARebindFileError)),
            Journal(path, key) as journal,
        ):
            list(journal.read())


def test_a_removed_or_moved_record_is_refused(tmp_path):
    """Each record vouches for those before it."""
    path = tmp_path / "journal"
    whole = written(path, RECORDS)
    ends = [len(written(path, RECORDS[:count])) for count in range(len(RECORDS) + 1)]
    first, second, third = (whole[ends[n] : ends[n + 1]] for n in range(3))
    for order in ([second, third], [first, third], [first, third, second]):
        path.write_bytes(whole[: ends[0]] + b"".join(order))
        with pytest.raises((CorruptedError, WrongKeyError)), Journal(path) as journal:
            list(journal.read())


PARENT = """
import sys, time
from functools import partial
from pathlib import Path
import rebind
from test_saved_results import counting
from trial_material import Net, make_evaluator

def task(folder, binding):
    done = counting(folder, binding)
    if len(list(folder.iterdir())) > 3 and not Path(sys.argv[3]).exists():
        Path(sys.argv[3]).touch()
        time.sleep(60)
    return done

trials = [rebind.Trial(model=Net, name=f"t{n}", task=partial(task, Path(sys.argv[1]))) for n in range(6)]
for result in rebind.run_trials(make_evaluator(), trials, rebind.SerialPool(), file=sys.argv[2]):
    print(result.name, result.score, flush=True)
"""


def test_a_parent_that_is_killed_loses_no_result(tmp_path):
    """SIGKILL in the midst of a trial; another process gives the same results and runs only the rest."""
    calls, path, marker = tmp_path / "calls", tmp_path / "results", tmp_path / "hanging"
    calls.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", PARENT, str(calls), str(path), str(marker)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        lines = [parent.stdout.readline() for _ in range(3)]
        while not marker.exists():
            time.sleep(0.01)
        parent.send_signal(signal.SIGKILL)
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert again.splitlines()[:3] == [line.strip() for line in lines]
    assert len(again.splitlines()) == 6
    assert len(list(calls.iterdir())) in (6, 7), "the trial that was killed may have begun"


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(), st.lists, max_leaves=8))
def test_a_fingerprint_depends_on_content_alone(value):
    """Equal values built twice have one fingerprint, and a value inside another has its own."""
    import copy

    assert fingerprint(value) == fingerprint(copy.deepcopy(value))
    assert fingerprint(value) != fingerprint([value, 1])


def test_an_evaluator_has_one_fingerprint_in_every_process():
    """Closures included, of which the pickles differ from process to process."""
    script = (
        "from trial_material import *; from rebind.runtime.trials.fingerprint import fingerprint\n"
        "names = {'a', 'b', 'c'}\n"
        "def score(model, names=names): return float(len(names))\n"
        "e = make_evaluator(dummy_input=torch.ones(2, 6)).model_copy(update={'evaluating_func': score})\n"
        "print(fingerprint(e.fields()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**environment, "PYTHONHASHSEED": seed},
        )
        found.add(done.stdout)
    assert len(found) == 1
