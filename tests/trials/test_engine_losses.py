"""What an engine loses: cancelled jobs are not begun again, the others are, with their files."""

from __future__ import annotations

import pytest
from trial_material import Net, make_evaluator

import rebind
from rebind.runtime.pools import Briefing, Fate, Job
from rebind.runtime.pools.engine import AGAIN, EnginePool
from rebind.runtime.pools.host import NEEDS, _joined


class LosesJobs(EnginePool):
    """An engine that never does a job, and tells of the loss of one before it is asked to end it.

    Args:
        told: Whether the pool is told of the cancellation at all, or only of the loss.
    """

    slots = 2

    def __init__(self, told=True):
        super().__init__(threads=1, env=None, path=())
        self._told = told
        self.when_begun = lambda: None
        self.sent = []
        self.held = []

    def cancel(self, job_id):
        if self._told:
            super().cancel(job_id)
        else:
            self._recall(job_id)

    def _send(self, job, files):
        self.sent.append((job.id, [*files.values()]))
        self.when_begun()

    def _recall(self, job_id):
        self._came(self._run, job_id, "was lost by the engine")

    def _open(self, expected):
        pass

    def _put(self, content):
        self.held.append(content)
        return len(self.held) - 1

    def _is_held(self, reference):
        return self.held[reference] is not None

    def _let_go(self, name):
        pass


def test_a_pool_tells_of_the_cancellation_and_not_of_the_loss_that_it_causes():
    """Engines tell of a killed worker from threads of their own, at any moment."""
    pool = LosesJobs()
    pool.start(Briefing("pool_jobs:echo"))
    pool.submit(Job(0, b""))
    pool.cancel(0)
    assert pool.next_outcome(0).fate is Fate.CANCELLED
    assert pool.next_outcome(0) is None
    pool.stop()


def test_a_cancelled_job_that_has_just_asked_for_files_is_not_sent_again():
    """It would run on, wanted by nobody, beside as many as there are slots."""
    pool = LosesJobs()
    pool.start(Briefing("pool_jobs:echo"))
    pool.submit(Job(0, b""))
    pool._came(pool._run, 0, _joined({"word": NEEDS, "digests": []}))
    pool.cancel(0)
    assert pool.next_outcome(0).fate is Fate.CANCELLED
    assert pool.sent == [(0, [])]
    pool.stop()


def test_what_the_engine_has_lost_before_it_began_is_sent_again(tmp_path):
    """The job, with its files; what the engine still has of them is not handed over twice."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    needs = _joined({"word": NEEDS, "digests": ["digest"]})
    pool = LosesJobs()
    pool.start(Briefing("pool_jobs:echo"))
    for number in range(3):
        pool.submit(Job(number, b"", {"digest": str(path)}))
        pool._came(pool._run, number, needs)
        assert pool.next_outcome(0) is None
        if number == 1:
            pool.held[0] = None
    pool._came(pool._run, 2, AGAIN)
    assert pool.next_outcome(0) is None
    assert pool.sent == [(0, []), (0, [0]), (1, []), (1, [0]), (2, []), (2, [1]), (2, [])]
    assert pool.held == [None, b"content"]
    pool.stop()


def test_a_trial_that_is_lost_and_then_cancelled_is_not_begun_again():
    """Before the run has looked at either."""
    pool = LosesJobs()
    results = rebind.run_trials(make_evaluator(), [rebind.Trial(model=Net, name="one")], pool, retries=5)

    def lose():
        pool._came(pool._run, 0, "was lost by the engine")
        results.cancel("one")

    pool.when_begun = lose
    (result,) = results
    assert type(result.error) is rebind.TrialCancelledError
    assert result.attempts == 1


@pytest.mark.parametrize("told", [True, False])
def test_a_trial_that_is_no_longer_wanted_is_not_begun_again(told):
    """Whichever of the two is told first."""
    pool = LosesJobs(told)
    results = rebind.run_trials(make_evaluator(), [rebind.Trial(model=Net, name="one")], pool, retries=5)
    pool.when_begun = lambda: results.cancel("one")
    (result,) = results
    assert type(result.error) is rebind.TrialCancelledError
    assert result.attempts == 1
