"""What holds for every pool. A new kind of pool joins by one more entry in `POOLS`."""

from __future__ import annotations

import pytest

from rebind.evaluator_schema.errors import TrialError
from rebind.runtime.pools import Briefing, Fate, Job, LocalPool, SerialPool

POOLS = {"serial": SerialPool, "local": lambda: LocalPool(workers=2)}
ISOLATED = ["local"]


@pytest.fixture(params=POOLS)
def pool(request):
    pool = POOLS[request.param]()
    yield pool
    pool.close()


@pytest.fixture(params=ISOLATED)
def isolated(request):
    pool = POOLS[request.param]()
    yield pool
    pool.close()


def outcomes(pool, handler, payloads, context=b"", **job):
    pool.start(Briefing(f"pool_jobs:{handler}", context), expected=len(payloads))
    for number, payload in enumerate(payloads):
        pool.submit(Job(number, payload, **job))
    found = {}
    while (outcome := pool.next_outcome()) is not None:
        assert outcome.job_id not in found
        found[outcome.job_id] = outcome
    pool.stop()
    return [found[number] for number in range(len(payloads))]


def test_each_job_gets_its_own_answer(pool):
    """Payload and context arrive as they were, and answers are not mixed up."""
    payloads = [b"", b"one", bytes(range(256)), b"x" * 3_000_000]
    found = outcomes(pool, "echo", payloads, context=b"context ")
    assert [bytes(outcome.answer) for outcome in found] == [b"context " + p for p in payloads]
    assert {outcome.fate for outcome in found} == {Fate.ANSWERED}
    assert all(outcome.process_id for outcome in found)


def test_a_handler_that_raises_costs_its_job_only(pool):
    """The error comes back as text, with the traceback, also where it is SystemExit."""
    found = outcomes(pool, "misbehave", [b"raise something odd", b"leave", b"fine"])
    assert [outcome.fate for outcome in found] == [Fate.RAISED, Fate.RAISED, Fate.ANSWERED]
    assert found[0].detail == "ValueError: something odd"
    assert "in handle" in found[0].trace
    assert found[1].detail.startswith("SystemExit")


def test_a_pool_is_usable_again_after_a_run(pool):
    """Each run has its own briefing, and nothing of the run before."""
    assert bytes(outcomes(pool, "echo", [b"1"], context=b"a")[0].answer) == b"a1"
    assert bytes(outcomes(pool, "echo", [b"2"], context=b"b")[0].answer) == b"b2"


def test_a_pool_in_a_with_block_keeps_its_workers(pool):
    """The same processes serve each run, which has a context of its own."""
    served, contexts = set(), [b"a", b"b", b"c"]
    with pool:
        for context in contexts:
            found = outcomes(pool, "echo", [b"1"] * 4, context=context)
            assert {bytes(outcome.answer) for outcome in found} == {context + b"1"}
            served |= {outcome.process_id for outcome in found}
        # All of them need not have started when the first run is over.
        assert len(served) <= pool.slots < len(contexts)


def test_jobs_without_an_outcome_are_dropped_when_the_run_stops(pool):
    """The next run never sees the outcome of a job that it did not submit."""
    with pool:
        pool.start(Briefing("pool_jobs:echo"), expected=3)
        for number in range(3):
            pool.submit(Job(number, b"old"))
        pool.stop()
        assert [bytes(o.answer) for o in outcomes(pool, "echo", [b"new"])] == [b"new"]


def test_a_pool_takes_one_run_at_a_time(pool):
    """A second run is refused with the reason, and the first goes on."""
    pool.start(Briefing("pool_jobs:echo"))
    with pytest.raises(TrialError, match="busy with another run"):
        pool.start(Briefing("pool_jobs:echo"))
    pool.submit(Job(0, b"still here"))
    assert bytes(pool.next_outcome().answer) == b"still here"


def test_asking_for_an_outcome_without_a_job_does_not_wait_for_ever(pool):
    """No job, no outcome."""
    pool.start(Briefing("pool_jobs:echo"))
    assert pool.next_outcome() is None


def test_closing_twice_does_no_harm(pool):
    """Also before anything was started."""
    pool.close()
    outcomes(pool, "echo", [b""])
    pool.close()
    pool.close()


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"exit", "exited with status 3"),
        (b"kill", "was killed by SIGKILL"),
        (b"segfault", "was killed by SIGSEGV"),
    ],
)
def test_a_dead_worker_costs_its_job_only(isolated, payload, detail):
    """The others are answered, and the pool stays usable."""
    found = outcomes(isolated, "misbehave", [b"a", payload, b"b", b"c"])
    assert [o.fate for o in found] == [Fate.ANSWERED, Fate.DIED, Fate.ANSWERED, Fate.ANSWERED]
    assert found[1].detail.startswith(detail)
    assert outcomes(isolated, "misbehave", [b"d"])[0].fate is Fate.ANSWERED


def test_a_crash_in_native_code_tells_where_it_was(isolated):
    """The Python traceback of a segmentation fault comes back with the outcome."""
    (outcome,) = outcomes(isolated, "misbehave", [b"segfault"])
    assert "string_at" in outcome.trace


def test_a_job_over_its_time_is_killed_and_the_others_go_on(isolated):
    """A timeout ends a job that would never end, even one that holds the interpreter."""
    found = outcomes(isolated, "misbehave", [b"hang", b"a", b"hog /dev/null", b"b"], timeout=0.5)
    assert [o.fate for o in found] == [
        Fate.TIMED_OUT,
        Fate.ANSWERED,
        Fate.TIMED_OUT,
        Fate.ANSWERED,
    ]


def test_a_job_that_waits_is_cancelled_before_it_begins(pool):
    """Its outcome says so, and comes once; a job that has ended stays as it is."""
    pool.start(Briefing("pool_jobs:echo"), expected=4)
    for number in range(4):
        pool.submit(Job(number, b"x"))
    pool.cancel(3)
    pool.cancel(77)
    found = {}
    while (outcome := pool.next_outcome()) is not None:
        assert found.setdefault(outcome.job_id, outcome) is outcome
    pool.cancel(0)
    assert pool.next_outcome() is None
    assert found[3].fate is Fate.CANCELLED
    assert {found[number].fate for number in range(3)} == {Fate.ANSWERED}


def test_a_job_that_runs_is_cancelled_and_the_others_go_on(isolated, tmp_path):
    """Its worker is killed, even one that holds the interpreter."""
    isolated.start(Briefing("pool_jobs:misbehave"), expected=2)
    isolated.submit(Job(0, b"hog " + str(tmp_path / "marker").encode()))
    while not (tmp_path / "marker").exists():
        assert isolated.next_outcome(0.01) is None
    isolated.submit(Job(1, b"fine"))
    isolated.cancel(0)
    found = {outcome.job_id: outcome.fate for outcome in iter(isolated.next_outcome, None)}
    assert found == {0: Fate.CANCELLED, 1: Fate.ANSWERED}


def test_a_serial_job_over_its_time_is_told_once_it_returns(tmp_path):
    """Nobody can stop it in this process; its outcome is the one of any other pool."""
    with SerialPool() as pool:
        (outcome,) = outcomes(pool, "misbehave", [b"pid"], timeout=1e-9)
    assert outcome.fate is Fate.TIMED_OUT
