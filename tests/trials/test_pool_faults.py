"""Worker processes and the ways in which they, or their parent, end."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from chaos import Chaos
from trial_processes import marked_processes, wait_until_gone

from rebind.evaluator_schema.errors import WorkerDiedError
from rebind.runtime.pools import Briefing, Fate, Job, LocalPool, local

HERE = Path(__file__).parent


@pytest.fixture
def parent(tmp_path):
    """Start a script that has a pool, and wait for its first line."""
    started = []

    def start(body):
        script = textwrap.dedent(
            """
            import os, sys
            from pathlib import Path
            from rebind.runtime.pools import Briefing, Job, LocalPool

            marker = Path(sys.argv[1])
            pool = LocalPool(workers=2)
            """
        ) + textwrap.dedent(body)
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "marker")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
            start_new_session=True,
        )
        workers = {int(pid) for pid in process.stdout.readline().split()}
        started.append((process, workers))
        assert len(workers) == 2, process.stderr.read()
        return process, workers

    yield start
    for process, workers in started:
        process.kill()
        for pid in workers & marked_processes():
            os.kill(pid, signal.SIGKILL)
        process.communicate()


IDLE = """
    with pool:
        pool.start(Briefing("pool_jobs:misbehave"), expected=2)
        for number in range(2):
            pool.submit(Job(number, b"pid"))
        while pool.next_outcome():
            pass
        print(*pool.process_ids, flush=True)
        sys.stdin.readline()
"""
BUSY = """
    pool.start(Briefing("pool_jobs:misbehave"), expected=2)
    pool.submit(Job(0, b"hog " + str(marker).encode()))
    pool.submit(Job(1, b"hog " + str(marker).encode() + b"2"))
    while not marker.exists() or not Path(str(marker) + "2").exists():
        pool.next_outcome(0.01)
    print(*pool.process_ids, flush=True)
    pool.next_outcome()
"""


@pytest.mark.parametrize("body", [IDLE, BUSY], ids=["idle", "busy"])
def test_no_worker_outlives_a_parent_that_is_killed(parent, body):
    """SIGKILL leaves no time to tidy up; the workers end, even one that holds its interpreter."""
    process, workers = parent(body.replace("sys.stdin.readline()", "import signal; signal.pause()"))
    process.kill()
    process.wait()
    assert not wait_until_gone(workers)


def test_ctrl_c_ends_the_parent_and_its_workers(parent):
    """The parent gets its KeyboardInterrupt while it waits, and no worker is left."""
    process, workers = parent(BUSY)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGINT
    assert errors.count("KeyboardInterrupt") == 1, "the workers print nothing"
    assert not wait_until_gone(workers)


def test_an_exit_without_closing_leaves_no_worker(parent):
    """A script that forgets its pool ends, and so do the workers."""
    process, workers = parent(BUSY.replace("pool.next_outcome()", "sys.exit()"))
    assert process.wait() == 0
    assert not wait_until_gone(workers)


def test_a_fork_of_the_parent_neither_keeps_nor_ends_the_workers(parent):
    """The copy's end is none of the pool's business, nor does its life hold a worker back."""
    process, workers = parent(
        """
        import signal
        pool.start(Briefing("pool_jobs:misbehave"), expected=2)
        pool.submit(Job(0, b"pid"))
        pool.submit(Job(1, b"pid"))
        answered = [pool.next_outcome(), pool.next_outcome()]
        copy = os.fork()
        if not copy:
            pool.close()
            sys.exit()
        os.waitpid(copy, 0)
        pool.submit(Job(2, b"pid"))
        assert int(bytes(pool.next_outcome().answer)) in pool.process_ids
        print(*pool.process_ids, flush=True)
        if not (copy := os.fork()):
            signal.pause()
        pool.close()
        print(copy, flush=True)
        """
    )
    copy = int(process.stdout.readline())
    assert not wait_until_gone(workers)
    os.kill(copy, signal.SIGKILL)
    assert process.wait() == 0


def test_what_a_worker_started_ends_with_it():
    """A process that a job left behind, with a copy of the channel, neither lives on nor hides
    the worker's death.
    """
    pool = LocalPool(workers=1)
    pool.start(Briefing("pool_jobs:misbehave"), expected=2)
    pool.submit(Job(0, b"spawn"))
    child = int(bytes(pool.next_outcome().answer))
    pool.submit(Job(1, b"kill"))
    assert pool.next_outcome().fate is Fate.DIED
    assert not wait_until_gone({child})
    pool.stop()


def test_an_abandoned_pool_leaves_nothing(tmp_path):
    """Losing the last reference is as good as closing, also in the midst of jobs."""
    pool = LocalPool(workers=2)
    pool.start(Briefing("pool_jobs:misbehave"), expected=2)
    pool.submit(Job(0, b"hang"))
    pool.submit(Job(1, b"raise x"))
    assert pool.next_outcome().fate is Fate.RAISED
    workers = pool.process_ids
    del pool
    gc.collect()
    assert not wait_until_gone(workers, seconds=2)


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        ("cannot_open", "no such accelerator"),
        ("dies_when_opened", "exited with status 7"),
        ("is_not_there", "is_not_there"),
    ],
)
def test_workers_that_cannot_start_are_told_and_not_started_for_ever(handler, told):
    """The reason is in the error; nothing hangs, nothing is left."""
    pool = LocalPool(workers=2)
    pool.start(Briefing(f"pool_jobs:{handler}"))
    pool.submit(Job(0, b""))
    with pytest.raises(WorkerDiedError, match=told):
        pool.next_outcome()
    pool.stop()


def test_a_python_that_does_not_start_is_told(monkeypatch):
    """Not even a process: the same error, with the system's reason."""
    import multiprocessing.spawn

    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", "/nowhere/python")
    pool = LocalPool(workers=1)
    pool.start(Briefing("pool_jobs:echo"))
    pool.submit(Job(0, b""))
    with pytest.raises(WorkerDiedError, match="No such file"):
        pool.next_outcome()
    pool.stop()


def test_a_ctrl_c_while_workers_start_spoils_no_later_run(monkeypatch):
    """A worker that was decided on, and not started, is not waited for."""

    def interrupted(*_):
        raise KeyboardInterrupt

    with LocalPool(workers=1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(local, "WorkerProcess", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.start(Briefing("pool_jobs:misbehave"))
        pool.stop()
        pool.start(Briefing("pool_jobs:misbehave"))
        pool.submit(Job(0, b"pid"))
        assert pool.next_outcome(30).fate is Fate.ANSWERED


def test_a_start_that_lacks_descriptors_leaves_none_and_no_process():
    """Else those that are tried again and again would take what is left."""
    script = textwrap.dedent(
        """
        import os, resource
        from rebind.runtime.pools.process import Surroundings, WorkerProcess

        surroundings, made = Surroundings.here(1, {}), 0
        opened = lambda: len(os.listdir("/proc/self/fd"))
        before, (_, most) = opened(), resource.getrlimit(resource.RLIMIT_NOFILE)
        for room in range(20):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + room, most))
            try:
                WorkerProcess(surroundings).bury()
                made += 1
            except OSError:
                pass
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            assert opened() == before, f"{opened() - before} left, with room for {room}"
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                continue
            raise AssertionError("a process is left")
        print(made)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert 5 < int(done.stdout) < 15


def test_workers_have_their_threads_set_before_any_library_reads_them():
    """The environment says so from the start, and takes what the caller adds."""
    pool = LocalPool(workers=1, threads=3, env={"EXTRA": "yes"})
    pool.start(Briefing("pool_jobs:environment"))
    pool.submit(Job(0, b"OMP_NUM_THREADS MKL_NUM_THREADS EXTRA"))
    assert bytes(pool.next_outcome().answer) == b"3 3 yes"
    pool.stop()


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"threads": -1}, {"workers": "many"}])
def test_a_pool_of_no_use_is_refused(wrong):
    """The message names the argument and what was found."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LocalPool(**wrong)


def survive(tasks, size, seed, retries=20):
    """Run tasks under chaos, retrying those whose worker died; returns kills and deaths at work."""
    payloads = [random.Random(seed + n).randbytes(size) for n in range(tasks)]
    pool = LocalPool(workers=2)
    pool.start(Briefing("pool_jobs:digest_and_blob"), expected=tasks)
    attempts = dict.fromkeys(range(tasks), 1)
    for number, payload in enumerate(payloads):
        pool.submit(Job(number, payload))
    done, deaths = {}, 0
    try:
        with Chaos(lambda: pool.process_ids, seed, share=1 / 4, longest=0.02) as chaos:
            while (outcome := pool.next_outcome()) is not None:
                task = outcome.job_id % tasks
                assert task not in done
                if outcome.fate is Fate.DIED:
                    deaths += 1
                    assert attempts[task] <= retries
                    pool.submit(Job(task + tasks * attempts[task], payloads[task]))
                    attempts[task] += 1
                else:
                    done[task] = hashlib.sha256(outcome.answer).digest()
                chaos.saw_a_result()
    finally:
        pool.stop()
    for task, payload in enumerate(payloads):
        expected = hashlib.sha256(payload).digest() * (size // 32)
        assert done[task] == hashlib.sha256(expected).digest()
    return chaos.killed, deaths


@pytest.mark.long
def test_every_task_is_done_while_workers_are_killed_at_random():
    """Answers are complete and byte-exact, whatever moment a worker is killed at."""
    killed, _ = survive(tasks=60, size=2 << 20, seed=7)
    assert killed


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_400_tasks_of_2_mib_are_done_while_workers_are_killed_at_random(seed):
    """The run that broke the pools of other libraries: 400 of 400, no hang, each time."""
    _, deaths = survive(tasks=400, size=2 << 20, seed=seed)
    assert deaths, "workers were killed in the midst of tasks"
