from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rebind.runtime.pools.dispatch import Brief, Dispatcher, Kill, Report, Rest, Send, Start
from rebind.runtime.pools.pool import Fate, Job


def reports(actions):
    return [action.outcome for action in actions if isinstance(action, Report)]


def test_workers_start_for_the_jobs_that_are_expected_and_no_more_than_slots():
    """Two trials do not start eight workers, and eight trials start all there may be."""
    assert Dispatcher(slots=8).begin(expected=2) == [Start(0), Start(1)]
    assert len(Dispatcher(slots=3).begin(expected=100)) == 3


def test_a_dead_worker_costs_its_own_job_and_the_next_job_a_new_worker():
    """The death is reported once, and the worker is replaced as there is work for another."""
    dispatcher = Dispatcher(slots=1)
    dispatcher.begin(expected=2)
    dispatcher.submitted(Job(0, b"a"), now=0)
    dispatcher.submitted(Job(1, b"b"), now=0)
    assert dispatcher.ready(0, 100, now=1) == [Send(0, Job(0, b"a"))]
    actions = dispatcher.ended(0, "was killed", now=2)
    (outcome,) = reports(actions)
    assert (outcome.job_id, outcome.fate, outcome.process_id) == (0, Fate.DIED, 100)
    assert outcome.seconds == 1
    assert Start(1) in actions
    assert dispatcher.ready(1, 101, now=3) == [Send(1, Job(1, b"b"))]


def test_an_idle_worker_that_dies_is_not_replaced_before_there_is_work():
    """Nothing is started for nobody."""
    dispatcher = Dispatcher(slots=1)
    dispatcher.begin(expected=1)
    dispatcher.ready(0, 100, now=0)
    assert dispatcher.ended(0, "was killed", now=1) == []
    assert dispatcher.submitted(Job(0, b""), now=2) == [Start(1)]


def test_time_counts_from_the_sending_and_not_from_the_submission():
    """A job that waits for a slot loses none of its time."""
    dispatcher = Dispatcher(slots=1)
    dispatcher.begin(expected=1)
    dispatcher.submitted(Job(0, b"", timeout=5), now=0)
    assert dispatcher.deadline is None
    dispatcher.ready(0, 100, now=60)
    assert dispatcher.deadline == 65
    assert dispatcher.expired(now=64.9) == []
    kill, report = dispatcher.expired(now=65)
    assert (kill, report.outcome.fate) == (Kill(0), Fate.TIMED_OUT)
    assert dispatcher.ended(0, "was killed", now=66) == []


def test_an_answer_that_has_begun_to_arrive_is_not_late():
    """A parent that comes late to read a large answer does not blame the worker."""
    dispatcher = Dispatcher(slots=1)
    dispatcher.begin(expected=1)
    dispatcher.submitted(Job(0, b"", timeout=5), now=0)
    dispatcher.ready(0, 100, now=0)
    dispatcher.answering(0, now=30)
    assert dispatcher.expired(now=30) == []
    (outcome,) = reports(dispatcher.answered(0, 0, now=31, answer=b"x"))
    assert outcome.fate is Fate.ANSWERED


def test_a_pool_whose_workers_cannot_start_gives_up():
    """After some starts in vain the reason is told, instead of trying for ever."""
    dispatcher = Dispatcher(slots=1, patience=3)
    dispatcher.begin(expected=1)
    dispatcher.submitted(Job(0, b""), now=0)
    for number in range(2):
        assert dispatcher.ended(number, "no memory", now=0) == [Start(number + 1)]
    assert dispatcher.ended(2, "no memory", now=0) == []
    assert dispatcher.broken == "no memory"


def test_being_killed_while_starting_is_no_reason_to_give_up_soon():
    """Whoever kills at random hits starting workers as well."""
    dispatcher = Dispatcher(slots=1, patience=3)
    dispatcher.begin(expected=1)
    dispatcher.submitted(Job(0, b""), now=0)
    for number in range(40):
        assert dispatcher.ended(number, "was killed", now=0, killed=True) == [Start(number + 1)]
    assert dispatcher.ready(40, 100, now=0) == [Send(40, Job(0, b""))]


def test_a_new_run_briefs_the_idle_and_a_dropped_run_kills_the_busy():
    """Warm workers are told about the new run, and of its end; an abandoned job does not go on in secret."""
    dispatcher = Dispatcher(slots=2)
    dispatcher.begin(expected=2)
    dispatcher.submitted(Job(0, b""), now=0)
    dispatcher.ready(0, 100, now=0)
    dispatcher.ready(1, 101, now=0)
    assert dispatcher.dropped() == [Kill(0), Rest(1)]
    assert dispatcher.begin(expected=1) == [Brief(1)]
    assert dispatcher.answered(0, 0, now=1) == []


class DispatcherMachine(RuleBasedStateMachine):
    """Any order of events: each job gets one outcome, and a worker has one job at a time."""

    def __init__(self):
        super().__init__()
        self.slots = 3
        self.dispatcher = Dispatcher(self.slots, patience=1000)
        self.now = 0.0
        self.jobs = {}
        self.outcomes = {}
        self.starting, self.idle, self.busy, self.gone = set(), set(), {}, set()
        self.apply(self.dispatcher.begin(2))

    def apply(self, actions):
        for action in actions:
            match action:
                case Start(worker):
                    assert worker not in self.starting | self.idle | set(self.busy) | self.gone
                    self.starting.add(worker)
                case Send(worker, job):
                    assert worker in self.idle
                    assert job.id not in self.busy.values()
                    assert job.id not in self.outcomes
                    self.idle.remove(worker)
                    self.busy[worker] = job.id
                case Kill(worker):
                    self.busy.pop(worker)
                    self.gone.add(worker)
                case Report(outcome):
                    assert outcome.job_id not in self.outcomes
                    self.outcomes[outcome.job_id] = outcome.fate

    @rule(timeout=st.none() | st.floats(0.1, 5))
    def submit(self, timeout):
        job = Job(len(self.jobs), b"", timeout=timeout)
        self.jobs[job.id] = job
        self.apply(self.dispatcher.submitted(job, self.now))

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def ready(self, data):
        worker = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.remove(worker)
        self.idle.add(worker)
        self.apply(self.dispatcher.ready(worker, worker, self.now))

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), fate=st.sampled_from([Fate.ANSWERED, Fate.RAISED]))
    def answer(self, data, fate):
        worker = data.draw(st.sampled_from(sorted(self.busy)))
        job = self.busy.pop(worker)
        self.idle.add(worker)
        self.apply(self.dispatcher.answered(worker, job, self.now, fate=fate))

    @precondition(lambda self: self.starting or self.idle or self.busy)
    @rule(data=st.data())
    def die(self, data):
        worker = data.draw(st.sampled_from(sorted({*self.starting, *self.idle, *self.busy})))
        self.starting.discard(worker)
        self.idle.discard(worker)
        self.busy.pop(worker, None)
        self.gone.add(worker)
        self.apply(self.dispatcher.ended(worker, "died", self.now))

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def hear_of_one_that_is_gone(self, data):
        worker = data.draw(st.sampled_from(sorted(self.gone)))
        assert self.dispatcher.ended(worker, "died", self.now) == []
        assert self.dispatcher.ready(worker, worker, self.now) == []
        assert self.dispatcher.answered(worker, 0, self.now) == []

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds):
        self.now += seconds
        self.apply(self.dispatcher.expired(self.now))

    @invariant()
    def jobs_are_accounted_for(self):
        waiting = len(self.jobs) - len(self.outcomes)
        assert self.dispatcher.pending == waiting
        assert set(self.busy.values()).isdisjoint(self.outcomes)

    @invariant()
    def no_worker_is_idle_while_a_job_waits(self):
        workers = len(self.starting) + len(self.idle) + len(self.busy)
        assert workers <= self.slots
        queued = len(self.jobs) - len(self.outcomes) - len(self.busy)
        assert not (queued and self.idle)
        assert not queued or workers == self.slots or len(self.starting) >= queued


TestDispatcher = DispatcherMachine.TestCase
TestDispatcher.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
