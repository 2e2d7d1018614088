"""Trials on every pool: the same results, and each fault an error of its own trial."""

from __future__ import annotations

import copy
import dataclasses
import errno
import mmap
import os
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
import trial_material as material
from trial_material import Net, make_evaluator
from trial_processes import left_files, wait_until_gone

import rebind
from rebind.evaluator_schema.errors import (
    NotSerializableError,
    SaveError,
    TrialError,
    TrialFailedError,
    TrialTimeoutError,
    UnpicklableResultError,
    UnpicklableTrialError,
    WorkerDiedError,
)
from rebind.runtime.trials.faults import RemoteTraceback
from rebind.runtime.trials.packing import Packer
from rebind.runtime.trials.shelf import Shelf
from rebind.serialization.packing import draft_value
from rebind.serialization.writing import Draft

POOLS = {"serial": rebind.SerialPool, "local": lambda: rebind.LocalPool(workers=2)}
SHARED = Net(4)


def make_trials():
    bonus = 0.25  # a closure ships with what it closes over
    model = Net(5)
    return [
        rebind.Trial(model=partial(Net, 12), name="factory"),
        rebind.Trial(model=Net(3), name="module", max_steps=2),
        rebind.Trial(model=SHARED, name="shared", max_steps=1),
        rebind.Trial(model=SHARED, name="shared too", max_steps=1),
        rebind.Trial(model=SHARED, name="as it is", task=rebind.evaluate),
        rebind.Trial(model=lambda: model, name="lambda", task=rebind.finetune_and_evaluate),
        rebind.Trial(model=Net, name="closure", task=lambda binding: bonus + 1),
        rebind.Trial(model=Net, name="random", task=material.random_numbers),
        rebind.Trial(model=Net, name="changes", task=material.changes_the_process),
        rebind.Trial(model=Net, name="conditions", task=material.conditions),
    ]


TRIALS = make_trials()
FAULTS = {
    "raises": (TrialFailedError, "ValueError: no such luck"),
    "raises_unpicklable": (TrialFailedError, "cannot be sent"),
    "raises_unprintable": (TrialFailedError, "UnprintableError"),
    "leaves": (TrialFailedError, "SystemExit: 3"),
    "returns_unpicklable": (UnpicklableResultError, "cannot be sent back"),
    "returns_what_fails_to_unpickle": (UnpicklableResultError, "does not come back"),
    "scores_with_unpicklable_info": (UnpicklableResultError, "handle"),
}
DEATHS = {
    "exits": (WorkerDiedError, "exited with status 3"),
    "is_killed": (WorkerDiedError, "SIGKILL"),
    "segfaults": (WorkerDiedError, "SIGSEGV"),
    "hangs": (TrialTimeoutError, "not done after"),
}


class DoesNotShip:
    def __call__(self, binding):
        return 1.0

    def __reduce__(self):
        raise RuntimeError("this does not ship")


def fault_trials(names):
    limits = {"hangs": 1.0}
    trials = [
        rebind.Trial(model=Net, name=n, task=getattr(material, n), timeout=limits.get(n)) for n in names
    ]
    return [
        *trials,
        rebind.Trial(model=Net, name="cannot be packed", task=DoesNotShip()),
        rebind.Trial(model=partial(int, "x"), name="factory raises"),
        rebind.Trial(model=int, name="factory gives no model"),
        rebind.Trial(model=Net, name="fine"),
    ]


@pytest.fixture(scope="module")
def evaluator():
    return make_evaluator()


@pytest.fixture(scope="module")
def ran(evaluator):
    """The same trials on each pool, and the trials with faults: {pool: {name: result}}."""
    found = {}
    for name, make in POOLS.items():
        faults = fault_trials([*FAULTS, *(DEATHS if name == "local" else ())])
        with make() as pool:
            run = rebind.run_trials(evaluator, TRIALS, pool, seed=3, state_dicts=True)
            results = {result.name: result for result in run}
            more = rebind.run_trials(evaluator, faults, pool, retries=0)
            results |= {result.name: result for result in more}
        found[name] = results
        assert len(results) == len(TRIALS) + len(faults)
    return found


@pytest.mark.parametrize("name", [trial.name for trial in TRIALS])
def test_every_pool_gives_the_same_bits(ran, name):
    """Score, value and every weight are equal, whichever process trained the model."""
    one, other = ran["serial"][name], ran["local"][name]
    assert one.error is None, repr(one.error.__cause__)
    assert other.error is None, repr(other.error.__cause__)
    assert (one.score, one.info, one.value) == (other.score, other.info, other.value)
    assert one.state_dict.keys() == other.state_dict.keys()
    for key, weight in one.state_dict.items():
        assert torch.equal(weight, other.state_dict[key])


def test_trials_of_one_model_each_get_it_as_it_was(ran):
    """A module that several trials share is neither trained by one for the next, nor for the caller."""
    results = ran["local"]
    assert torch.equal(results["as it is"].state_dict["last.bias"], SHARED.last.bias)
    assert not torch.equal(results["shared"].state_dict["last.bias"], SHARED.last.bias)


def test_a_trial_leaves_no_trace_in_the_next(ran):
    """Settings and seeds that one trial changed are back before the next, in every pool."""
    for results in ran.values():
        assert results["changes"].value == "torch.float64"
        assert results["conditions"].value == {
            "threads": 1,
            "dtype": "torch.float32",
            "grad": True,
            "deterministic": False,
        }


def test_tasks_give_scores_infos_and_values(ran):
    """An evaluation, a number, and anything else."""
    results = ran["local"]
    assert results["factory"].info == {"width": 12}
    assert results["closure"].score == 1.25
    assert results["random"].score is None
    assert results["random"].value is not None


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_a_typed_error_of_its_own_trial(ran, pool, name):
    """The message tells what happened, the cause where; the worker lives on."""
    kind, told = FAULTS[name]
    error = ran[pool][name].error
    assert type(error) is kind
    assert told in str(error)
    assert repr(name) in str(error)
    assert error.__cause__ is not None


@pytest.mark.parametrize("name", DEATHS)
def test_each_way_to_die_is_a_typed_error_of_its_own_trial(ran, name):
    """The worker is gone, and the trials beside it are not."""
    kind, told = DEATHS[name]
    result = ran["local"][name]
    assert type(result.error) is kind
    assert told in str(result.error)
    assert result.attempts == 1
    assert ran["local"]["fine"].error is None


@pytest.mark.parametrize("pool", POOLS)
def test_trials_that_cannot_begin_are_told(ran, pool):
    """Not packed, no model, not a model: three messages, and the others run."""
    results = ran[pool]
    assert isinstance(results["cannot be packed"].error, UnpicklableTrialError)
    assert "this does not ship" in str(results["cannot be packed"].error)
    assert results["cannot be packed"].attempts == 0
    assert "invalid literal" in str(results["factory raises"].error)
    assert "Module" in str(results["factory gives no model"].error)
    assert results["fine"].error is None


def test_the_remote_traceback_is_the_cause(ran):
    """It names the user's own line."""
    error = ran["local"]["raises"].error
    assert isinstance(error.__cause__, RemoteTraceback)
    assert 'raise ValueError("no such luck")' in str(error.__cause__)
    assert "string_at" in str(ran["local"]["segfaults"].error.__cause__)


def test_a_score_survives_an_info_that_does_not_ship(ran):
    """The error tells what was lost, and what was not is there."""
    assert ran["local"]["scores_with_unpicklable_info"].score == 0.5


def test_a_trial_whose_worker_was_killed_is_tried_again(evaluator, tmp_path):
    """It is begun once more, and its result is that of an undisturbed run."""
    task = partial(material.die_until, tmp_path / "marker")
    trials = [rebind.Trial(model=Net, name="victim", task=task)]
    (result,) = rebind.run_trials(evaluator, trials, rebind.LocalPool(workers=1))
    assert (result.score, result.attempts, result.error) == (1.0, 2, None)


@pytest.mark.parametrize(
    "leave", [lambda results: results.close(), lambda results: None], ids=["closed", "abandoned"]
)
def test_a_run_that_is_left_early_leaves_nothing_behind(evaluator, leave):
    """No process, descriptor or file, however it is left; the fixture of this folder looks."""
    trials = [
        rebind.Trial(model=Net, name="quick", task=rebind.evaluate),
        rebind.Trial(model=SHARED, name="hangs", task=material.hangs),
        rebind.Trial(model=SHARED, name="hangs too", task=material.hangs),
    ]
    pool = rebind.LocalPool(workers=1)
    results = rebind.run_trials(evaluator, trials, pool)
    assert not pool.process_ids, "nothing starts before the first result is asked for"
    assert next(results).name == "quick"
    workers = pool.process_ids
    leave(results)
    del results
    assert not wait_until_gone(workers, seconds=2)
    assert not pool.process_ids


def test_an_exception_in_the_consumer_ends_the_run(evaluator):
    """The loop's own error comes through, and the pool is free for another run."""
    pool = rebind.SerialPool()
    trials = [rebind.Trial(model=Net, task=rebind.evaluate) for _ in range(3)]

    def consume():
        for _ in rebind.run_trials(evaluator, trials, pool):
            raise LookupError("in the loop")

    with pytest.raises(LookupError):
        consume()
    assert len(list(rebind.run_trials(evaluator, trials, pool))) == 3


def test_the_callers_process_is_as_it_was(evaluator):
    """A serial run changes neither generators, nor settings, nor threads; nor is it changed by them."""
    torch.manual_seed(1)
    before = torch.get_rng_state(), torch.get_num_threads()
    with torch.no_grad():
        (result,) = rebind.run_trials(
            evaluator, [rebind.Trial(model=Net, name="changes")], rebind.SerialPool()
        )
    assert result.error is None
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


def test_seeds_come_from_the_run_and_the_name(evaluator):
    """Another run's seed or another name gives other numbers, the same ones give the same."""

    def numbers(name, seed):
        trials = [rebind.Trial(model=Net, name=name, task=material.random_numbers)]
        (result,) = rebind.run_trials(evaluator, trials, rebind.SerialPool(), seed=seed)
        return result.value

    assert numbers("a", 0) == numbers("a", 0)
    assert numbers("a", 0) != numbers("b", 0)
    assert numbers("a", 0) != numbers("a", 1)


def test_workers_have_the_callers_settings_of_torch(evaluator):
    """A default dtype that is set here counts there."""
    torch.set_default_dtype(torch.float64)
    try:
        trials = [rebind.Trial(model=Net, task=material.conditions)]
        (result,) = rebind.run_trials(evaluator, trials, rebind.LocalPool(workers=1))
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.value["dtype"] == "torch.float64"


def test_an_evaluator_that_cannot_be_written_ends_the_run():
    """It is no trial's fault: the run raises, and leaves no worker."""

    class Unwritable:
        def require_names(self):
            raise NotSerializableError("not this one")

    pool = rebind.LocalPool(workers=1)
    with pytest.raises(NotSerializableError, match="not this one"):
        next(rebind.run_trials(Unwritable(), [rebind.Trial(model=Net)], pool))
    assert not pool.process_ids


def maps_a_file_of_a_run(process):
    return "/memfd:rebind" in Path(f"/proc/{process}/maps").read_text()


def in_steps(model, optimizers, criterion, lr_schedulers, max_steps=None):
    material.train(model, optimizers, criterion, max_steps)
    lr_schedulers.step()


def test_warm_workers_give_the_memory_of_a_run_back_when_it_ends():
    """The files of evaluator and model are freed once nobody has them mapped: an idle pool holds nothing."""
    model = Net()
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    scheduler = rebind.trace(torch.optim.lr_scheduler.StepLR)(optimizer, 3)
    evaluator = rebind.TorchEvaluator(
        in_steps,
        optimizer,
        torch.nn.CrossEntropyLoss(),
        scheduler,
        dummy_input=torch.zeros(1 << 20),
        evaluating_func=material.score,
        model=model,
    )
    # One module for several trials goes to the workers in a file.
    trials = [rebind.Trial(model=model, name=name, max_steps=2) for name in "abc"]
    with rebind.LocalPool(workers=2) as pool:
        results = rebind.run_trials(evaluator, trials, pool)
        first = next(results)
        assert maps_a_file_of_a_run(first.process_id)
        assert not results.wait().failed
        pause = threading.Event()
        for _ in range(500):
            if not any(map(maps_a_file_of_a_run, pool.process_ids)):
                break
            pause.wait(0.02)
        assert not any(map(maps_a_file_of_a_run, pool.process_ids))
        assert not rebind.run_trials(evaluator, trials, pool).wait().failed


def test_a_second_run_on_a_busy_pool_is_refused(evaluator):
    """The first one goes on."""
    pool = rebind.SerialPool()
    first = rebind.run_trials(evaluator, [rebind.Trial(model=Net, name=n) for n in "ab"], pool)
    next(first)
    with pytest.raises(TrialError, match="busy"):
        next(rebind.run_trials(evaluator, [rebind.Trial(model=Net)], pool))
    assert next(first).error is None
    first.close()


def put(shelf, content, **options):
    return shelf.put(len(content), lambda file: file.write(content), **options)


def first_of(model):
    return next(model.parameters()).detach().flatten()[0].item()


def first_weight(binding):
    """Give the model's first weight."""
    return first_of(binding.model)


def test_models_of_equal_content_do_not_take_each_others_place():
    """Each goes to its trials in a file, and files of equal content are one, until the last trial is done."""
    first, third = Net(3), Net(3)
    models = {"a": first, "b": copy.deepcopy(first), "c": third}
    expected = {name: first_of(model) for name, model in models.items()}
    assert expected["a"] == expected["b"] != expected["c"]
    trials = [
        rebind.Trial(model=models[name], name=f"{name}{number}", task=first_weight)
        for name in "abc"
        for number in range(3)
    ]
    results = list(rebind.run_trials(make_evaluator(), trials, rebind.LocalPool(workers=1)))
    assert [(result.error, result.score) for result in results] == [
        (None, expected[result.name[0]]) for result in results
    ]


def test_a_file_is_kept_until_each_use_of_it_has_ended():
    """Equal contents share memory, and whoever is done with one of them takes nothing from the other."""
    with Shelf() as shelf:
        first, second, other = put(shelf, b"content"), put(shelf, b"content"), put(shelf, b"more")
        assert first == second
        shelf.remove(first)
        assert Path(second.path).read_bytes() == b"content"
        shelf.remove(second)
        shelf.remove(second)
        assert not Path(second.path).exists()
        assert Path(other.path).read_bytes() == b"more"


def test_a_file_that_is_not_the_one_that_was_sent_is_not_opened(monkeypatch):
    """A path may lead to another file by the time that it is opened."""
    model, other = Net(3), Net(3)
    job = Packer.job

    def mixed_up(packer, number, name, devices=()):
        made = job(packer, number, name, devices)
        another = packer._kept(draft_value(other, kind="model", key=packer._key))
        files = {
            digest: path if digest == packer._evaluator.digest else another.path
            for digest, path in made.files.items()
        }
        return dataclasses.replace(made, files=files)

    monkeypatch.setattr(Packer, "job", mixed_up)
    trials = [rebind.Trial(model=model, name=name, task=first_weight) for name in "ab"]
    for result in rebind.run_trials(make_evaluator(), trials, rebind.SerialPool()):
        assert isinstance(result.error, UnpicklableTrialError)
        assert "is not the one that was sent" in str(result.error)


@pytest.mark.parametrize("of", ["model", "evaluator", "large evaluator"])
def test_what_is_changed_while_it_is_written_is_told(of, monkeypatch):
    """By another thread, say, that trains it."""
    model, dummy = Net(3), torch.zeros(3 << 20 if of == "large evaluator" else 1000)
    evaluator = rebind.TorchEvaluator.from_fields(make_evaluator().fields() | {"dummy_input": dummy})
    changing = next(model.parameters()).data if of == "model" else dummy
    digests = Draft._digests

    def changed(draft, *arguments, **options):
        told = digests(draft, *arguments, **options)
        changing.add_(1)
        return told

    monkeypatch.setattr(Draft, "_digests", changed)
    trials = [rebind.Trial(model=model, name=name, task=first_weight) for name in "ab"]
    results = rebind.run_trials(evaluator, trials, rebind.SerialPool())
    if of != "model":
        with pytest.raises(NotSerializableError, match="were changed while"):
            next(results)
    else:
        for result in results:
            assert isinstance(result.error, UnpicklableTrialError)
            assert "changed while they were written" in str(result.error)


@pytest.mark.parametrize("left", [1 << 40, 0], ids=["memory", "disk"])
def test_files_have_a_name_where_the_system_gives_no_path_to_others(left, monkeypatch):
    """Other systems have no `/proc`, and in some containers it is that of other processes."""
    monkeypatch.setattr("rebind.runtime.trials.shelf.memory_left", lambda: left)
    monkeypatch.setattr(os, "getpid", os.getppid)
    with Shelf() as shelf:
        volume = put(shelf, b"content")
        assert Path(volume.path).name.startswith(f"rebind-{os.getpid()}-")
        assert Path(volume.path).read_bytes() == b"content"
    assert not Path(volume.path).exists()


@pytest.mark.parametrize("left", [1 << 40, 0], ids=["memory", "disk"])
def test_files_on_the_shelf_have_no_name_and_end_with_it(left, monkeypatch):
    """They are read by their path while the shelf is open; a full memory sends them to the disk."""
    monkeypatch.setattr("rebind.runtime.trials.shelf.memory_left", lambda: left)
    before = left_files()
    with Shelf() as shelf:
        volume, other = put(shelf, b"content"), put(shelf, b"more")
        assert Path(volume.path).read_bytes() == b"content"
        assert ("memfd" in str(Path(volume.path).readlink())) == bool(left)
        assert left_files() == before
        shelf.remove(other)
        assert not Path(other.path).exists()
    assert not Path(volume.path).exists()


def test_a_sealed_file_on_the_shelf_cannot_be_changed():
    """Neither by those that it was made for, nor by its maker."""
    with Shelf() as shelf:
        content = b"content"
        volume, open_one = put(shelf, content, sealed=True), put(shelf, b"more")
        for change in (
            lambda file: file.write(b"X"),
            lambda file: file.truncate(0),
            lambda file: file.truncate(99),
        ):
            with pytest.raises(PermissionError), Path(volume.path).open("r+b", buffering=0) as file:
                change(file)
        with Path(volume.path).open("r+b") as file, pytest.raises(PermissionError):
            mmap.mmap(file.fileno(), 0)
        assert Path(volume.path).read_bytes() == content
        with Path(open_one.path).open("r+b") as file:
            file.write(b"X")
        assert Path(open_one.path).read_bytes() == b"Xore"


def test_a_file_that_fits_nowhere_is_told(monkeypatch):
    """Memory that refuses it leads to the disk, and the disk's own word is passed on."""

    def write(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        Shelf() as shelf,
        pytest.raises(SaveError, match=r"No space left on device\. The disk is full: free"),
    ):
        shelf.put(7, write, sealed=True)


SCRIPT = """
import torch, rebind

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.only = torch.nn.Linear(2, 1)
    def forward(self, x):
        return self.only(x)

def train(model, optimizers, criterion, max_steps=None):
    for _ in range(max_steps):
        optimizers.zero_grad()
        criterion(model(torch.ones(4, 2)), torch.zeros(4, 1)).backward()
        optimizers.step()

def score(model):
    return -float(model(torch.ones(1, 2)).detach().abs())

def task(binding):
    binding.train(max_steps=40)
    return binding.evaluate()

model = Own()
optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
evaluator = rebind.TorchEvaluator(
    train, optimizer, torch.nn.functional.mse_loss, evaluating_func=score, model=model
)
trials = [rebind.Trial(model=Own, task=task, name=name) for name in "ab"]
for result in rebind.run_trials(evaluator, trials, rebind.LocalPool(workers=1)):
    if result.error:
        raise result.error
    print(result.name, result.score > -0.01)
"""


@pytest.mark.parametrize("how", [pytest.param("file", marks=pytest.mark.long), "standard input"])
def test_a_plain_script_ships_what_it_defines(tmp_path, how):
    """No `if __name__` is needed, and none of the classes and functions in `__main__` is lost."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script) if how == "file" else "-"],
        input=None if how == "file" else script.read_text(),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "a True", "b True"]
    assert not done.stderr
