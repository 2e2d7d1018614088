"""Jobs that a busy worker has already: they are begun once, by one worker, and nobody pays for another's."""

from __future__ import annotations

import itertools
import os
import time

import pytest
from trial_processes import wait_for

from rebind.runtime.pools import Briefing, Fate, Job, LocalPool


@pytest.fixture
def pool(request):
    """A pool with as many workers as asked for, all of them ready."""
    workers = getattr(request, "param", 1)
    with LocalPool(workers=workers) as pool:
        pool.start(Briefing("pool_jobs:misbehave"), expected=workers)
        ids, found = itertools.count(-1, -1), set()
        while len(found) < workers:
            for _ in range(workers):
                pool.submit(Job(next(ids), b"sleep 0.3"))
            found = {pool.next_outcome().process_id for _ in range(workers)}
        yield pool


def submit(pool, *payloads, **job):
    for number, payload in enumerate(payloads):
        pool.submit(Job(number, payload.encode(), **job))


def rest_of(pool):
    found = {}
    while (outcome := pool.next_outcome()) is not None:
        assert outcome.job_id not in found
        found[outcome.job_id] = outcome
    return found


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_goes_on_while_nobody_listens(pool, tmp_path):
    """The next job needs no parent that is awake: two processes that wake each other up take their time."""
    submit(pool, f"linger {tmp_path / 'a'}", f"note {tmp_path / 'b'}", f"note {tmp_path / 'c'}")
    (tmp_path / "a").touch()
    wait_for((tmp_path / "b").exists)
    time.sleep(0.2)
    assert not (tmp_path / "c").exists(), "one job ahead, and no more"
    assert {outcome.fate for outcome in rest_of(pool).values()} == {Fate.ANSWERED}
    assert [(tmp_path / name).read_text() for name in "bc"] == ["begun\n", "begun\n"]


@pytest.mark.parametrize("pool", [2], indirect=True)
def test_a_job_does_not_wait_behind_another_one_while_a_worker_is_idle(pool, tmp_path):
    """It is taken back and begun by the idle worker, and by that one alone."""
    submit(pool, f"linger {tmp_path / 'a'}", f"linger {tmp_path / 'b'}", f"note {tmp_path / 'c'}")
    (tmp_path / "b").touch()
    second, third = pool.next_outcome(), pool.next_outcome()
    assert (second.job_id, third.job_id) == (1, 2)
    assert third.process_id == second.process_id
    (tmp_path / "a").touch()
    first = pool.next_outcome()
    assert (first.job_id, first.fate) == (0, Fate.ANSWERED)
    # The first worker has passed over the job that was taken from it.
    for number in range(3, 8):
        pool.submit(Job(number, b"pid"))
    assert {outcome.fate for outcome in rest_of(pool).values()} == {Fate.ANSWERED}
    assert (tmp_path / "c").read_text() == "begun\n"


@pytest.mark.parametrize("pool", [2], indirect=True)
def test_a_job_that_was_taken_back_takes_no_other_one_s_place(pool, tmp_path):
    """Its worker has yet to pass over it, while both workers are busy and more jobs come in."""
    submit(pool, f"linger {tmp_path / 'a'}", f"linger {tmp_path / 'b'}", f"linger {tmp_path / 'c'}")
    (tmp_path / "b").touch()
    assert pool.next_outcome().job_id == 1
    assert pool.next_outcome(0.2) is None  # job 2 is with the second worker now, and its frame with the first
    for number in range(3, 7):
        pool.submit(Job(number, f"note {tmp_path / str(number)}".encode()))
    (tmp_path / "a").touch()
    found = [pool.next_outcome() for _ in range(5)]
    (tmp_path / "c").touch()
    found.append(pool.next_outcome())
    assert sorted(outcome.job_id for outcome in found) == [0, 2, 3, 4, 5, 6]
    assert {outcome.fate for outcome in found} == {Fate.ANSWERED}
    assert {(tmp_path / str(number)).read_text() for number in range(3, 7)} == {"begun\n"}


@pytest.mark.parametrize("pool", [2], indirect=True)
@pytest.mark.parametrize(("ending", "fate"), [("kill", Fate.DIED), ("hang", Fate.TIMED_OUT)])
def test_a_job_ahead_of_one_worker_is_begun_for_another_that_is_gone(pool, tmp_path, ending, fate):
    """However long the one before it takes."""
    pool.submit(Job(0, f"linger {tmp_path / 'a'}".encode()))
    pool.submit(Job(1, ending.encode(), timeout=1.0))
    pool.submit(Job(2, b"pid"))
    found = [pool.next_outcome(), pool.next_outcome()]
    assert [(outcome.job_id, outcome.fate) for outcome in found] == [(1, fate), (2, Fate.ANSWERED)]
    (tmp_path / "a").touch()
    assert pool.next_outcome().job_id == 0


@pytest.mark.parametrize(
    ("ending", "fate"), [("kill", Fate.DIED), ("hang", Fate.TIMED_OUT), ("exit", Fate.DIED)]
)
def test_a_job_ahead_survives_its_worker(pool, tmp_path, ending, fate):
    """It is begun once, by the worker that comes next."""
    submit(pool, ending, f"note {tmp_path / 'b'}", timeout=2.0)
    found = rest_of(pool)
    assert [found[number].fate for number in range(2)] == [fate, Fate.ANSWERED]
    assert found[0].process_id != found[1].process_id
    assert (tmp_path / "b").read_text() == "begun\n"


def test_a_job_ahead_is_cancelled_before_it_begins(pool, tmp_path):
    """Its worker is not killed for it."""
    submit(pool, f"linger {tmp_path / 'a'}", f"note {tmp_path / 'b'}")
    workers = pool.process_ids
    pool.cancel(1)
    (tmp_path / "a").touch()
    assert {n: o.fate for n, o in rest_of(pool).items()} == {0: Fate.ANSWERED, 1: Fate.CANCELLED}
    assert pool.process_ids == workers
    assert not (tmp_path / "b").exists()


def test_a_job_that_has_begun_unheard_is_cancelled_without_the_one_before(pool, tmp_path):
    """The answer of the one before is there, and is not thrown away with the worker."""
    submit(pool, f"linger {tmp_path / 'a'}", f"hog {tmp_path / 'b'}")
    (tmp_path / "a").touch()
    wait_for(lambda: (tmp_path / "b").exists() and (tmp_path / "b").read_text())
    pid = int((tmp_path / "b").read_text())
    pool.cancel(1)
    assert {n: o.fate for n, o in rest_of(pool).items()} == {0: Fate.ANSWERED, 1: Fate.CANCELLED}
    wait_for(lambda: not is_alive(pid))


def test_the_time_of_a_job_ahead_begins_with_it(pool):
    """However long the one before takes."""
    pool.submit(Job(0, b"sleep 1.5"))
    pool.submit(Job(1, b"sleep 0.6", timeout=1.0))
    pool.submit(Job(2, b"hang", timeout=1.0))
    found = rest_of(pool)
    assert [found[number].fate for number in range(3)] == [Fate.ANSWERED, Fate.ANSWERED, Fate.TIMED_OUT]


def test_its_seconds_are_the_workers_own(pool):
    """Whenever the pool hears of it, and whatever a job has done to the clock."""
    submit(pool, "stop_clock", "sleep 0.6")
    time.sleep(3)  # nobody listens
    found = rest_of(pool)
    assert found[0].seconds < 2.9
    assert 0.6 <= found[1].seconds < 2.9


def test_its_time_does_not_begin_while_the_answer_before_it_is_not_taken(pool, tmp_path):
    """It has been within its time, however late somebody comes for a large answer."""
    pool.submit(Job(0, f"linger {tmp_path / 'a'} {'x' * (8 << 20)}".encode()))
    pool.submit(Job(1, b"sleep 0.2", timeout=1.5))
    (tmp_path / "a").touch()
    time.sleep(3)
    assert [(o.job_id, o.fate) for o in rest_of(pool).values()] == [(0, Fate.ANSWERED), (1, Fate.ANSWERED)]


def test_a_run_that_stops_leaves_no_job_ahead(pool, tmp_path):
    """The worker of a stopped run is killed before it begins the next job."""
    submit(pool, f"linger {tmp_path / 'a'}", f"note {tmp_path / 'b'}")
    pool.stop()
    (tmp_path / "a").touch()
    pool.start(Briefing("pool_jobs:misbehave"))
    submit(pool, "pid")
    assert [outcome.fate for outcome in rest_of(pool).values()] == [Fate.ANSWERED]
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("pool", [2], indirect=True)
def test_each_of_many_short_jobs_is_begun_once(pool, tmp_path):
    """Also where workers take turns with each other's jobs all the time."""
    notes = [tmp_path / str(number) for number in range(600)]
    for number, note in enumerate(notes):
        pool.submit(Job(number, f"note {note}".encode()))
    found = rest_of(pool)
    assert sorted(found) == list(range(600))
    assert {outcome.fate for outcome in found.values()} == {Fate.ANSWERED}
    assert len({outcome.process_id for outcome in found.values()}) == 2
    assert {note.read_text() for note in notes} == {"begun\n"}
