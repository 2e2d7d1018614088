from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rebind.runtime.pools.ahead import Claims, Tokens
from rebind.runtime.pools.dispatch import (
    Brief,
    Dispatcher,
    Kill,
    Report,
    Rest,
    Send,
    SendAhead,
    Start,
    TakeBack,
)
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
    assert dispatcher.ready(0, 100, now=1) == [Send(0, Job(0, b"a")), SendAhead(0, Job(1, b"b"))]
    actions = dispatcher.ended(0, "was killed", now=2, unbegun={1})
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


def busy_with_one_ahead(now=0, timeout=None):
    """One worker that has job 0, and job 1 ahead."""
    dispatcher = Dispatcher(slots=1)
    dispatcher.begin(expected=1)
    dispatcher.ready(0, 100, now)
    assert dispatcher.submitted(Job(0, b"", timeout=timeout), now) == [Send(0, Job(0, b"", timeout=timeout))]
    assert dispatcher.submitted(Job(1, b"", timeout=5), now) == [SendAhead(0, Job(1, b"", timeout=5))]
    return dispatcher


def test_a_busy_worker_gets_one_job_ahead_and_its_time_begins_with_it():
    """It goes on by itself once it has answered; the time of a job is its own."""
    dispatcher = busy_with_one_ahead()
    assert dispatcher.submitted(Job(2, b""), now=1) == []
    assert dispatcher.deadline is None
    actions = dispatcher.answered(0, 0, now=60)
    assert [outcome.job_id for outcome in reports(actions)] == [0]
    assert actions[1:] == [SendAhead(0, Job(2, b""))]
    assert dispatcher.deadline == 65


def test_a_long_payload_is_not_sent_ahead():
    """A pool never waits for a worker to take what it cannot use yet, and neither does what follows it."""
    dispatcher = busy_with_one_ahead()
    dispatcher.answered(0, 0, now=1)
    assert dispatcher.submitted(Job(2, b"x" * 70_000), now=1) == []
    assert dispatcher.submitted(Job(3, b""), now=1) == []
    assert dispatcher.answered(0, 1, now=2)[1:] == [Send(0, Job(2, b"x" * 70_000)), SendAhead(0, Job(3, b""))]


def test_no_worker_is_idle_while_a_job_waits_behind_another_one():
    """The job is taken back for the worker that has nothing to do, unless it has been begun meanwhile."""
    for begun in (False, True):
        dispatcher = Dispatcher(slots=2)
        dispatcher.begin(expected=2)
        dispatcher.ready(0, 100, now=0)
        dispatcher.ready(1, 101, now=0)
        dispatcher.submitted(Job(0, b""), now=0)
        dispatcher.submitted(Job(1, b""), now=1)
        assert dispatcher.submitted(Job(2, b""), now=2) == [SendAhead(0, Job(2, b""))]
        assert dispatcher.answered(1, 1, now=3)[1:] == [TakeBack(0)]
        if begun:
            assert dispatcher.taken_back(0, (), now=3) == []
            assert dispatcher.answered(0, 0, now=4)[1:] == []
            assert [o.job_id for o in reports(dispatcher.answered(0, 2, now=5))] == [2]
        else:
            assert dispatcher.taken_back(0, {2}, now=3) == [Send(1, Job(2, b""))]
        assert dispatcher.pending == (0 if begun else 2)


def test_nothing_is_sent_ahead_to_a_worker_that_has_yet_to_pass_over_a_job():
    """It could take one token for the other: not before it has answered a job that was sent later."""
    dispatcher = busy_with_one_ahead()
    dispatcher.answered(0, 0, now=1)
    dispatcher.submitted(Job(2, b""), now=1)
    assert dispatcher.cancelled(2, now=2) == [TakeBack(0)]
    # The answer to job 0 has been heard, but the worker has not looked for its next job yet.
    cancelled, again = dispatcher.taken_back(0, {1, 2}, now=2)
    assert (cancelled.outcome.fate, again.job.id) == (Fate.CANCELLED, 1)
    assert dispatcher.submitted(Job(3, b""), now=3) == []
    assert dispatcher.answered(0, 1, now=4)[1:] == [Send(0, Job(3, b""))]
    assert dispatcher.submitted(Job(4, b""), now=5) == []
    assert dispatcher.answered(0, 3, now=6)[1:] == [Send(0, Job(4, b""))]
    assert dispatcher.submitted(Job(5, b""), now=7) == [SendAhead(0, Job(5, b""))]


def test_a_job_does_not_wait_behind_another_one_while_a_slot_is_free():
    """A worker that is gone is replaced for it."""
    dispatcher = Dispatcher(slots=2)
    dispatcher.begin(expected=2)
    dispatcher.ready(0, 100, now=0)
    dispatcher.ready(1, 101, now=0)
    for number in range(2):
        dispatcher.submitted(Job(number, b""), now=number)
    assert dispatcher.submitted(Job(2, b""), now=2) == [SendAhead(0, Job(2, b""))]
    assert dispatcher.ended(1, "died", now=3)[1:] == [TakeBack(0)]
    assert dispatcher.taken_back(0, {2}, now=3) == [Start(2)]
    assert dispatcher.ready(2, 102, now=5) == [Send(2, Job(2, b""))]


def test_a_worker_over_its_time_is_killed_only_if_it_has_not_gone_on():
    """The next job must not pay for the one before; whatever has gone on has answered in time."""
    dispatcher = busy_with_one_ahead(timeout=5)
    assert dispatcher.expired(now=5) == [TakeBack(0)]
    assert dispatcher.taken_back(0, {1}, now=5) == []
    kill, report, start = dispatcher.expired(now=5)
    assert (kill, report.outcome.fate, start) == (Kill(0), Fate.TIMED_OUT, Start(1))
    assert dispatcher.ready(1, 101, now=6) == [Send(1, Job(1, b"", timeout=5))]

    dispatcher = busy_with_one_ahead(timeout=5)
    assert dispatcher.expired(now=5) == [TakeBack(0)]
    assert dispatcher.taken_back(0, (), now=5) == []
    assert dispatcher.expired(now=5) == []
    (outcome,) = reports(dispatcher.answered(0, 0, now=5.1))
    assert (outcome.fate, dispatcher.deadline) == (Fate.ANSWERED, 10.1)


def test_a_worker_over_its_time_gets_no_job_ahead():
    """Or others' answers could put its end off for ever."""
    dispatcher = busy_with_one_ahead(timeout=5)
    assert dispatcher.expired(now=5) == [TakeBack(0)]
    assert dispatcher.taken_back(0, {1}, now=5) == []
    assert dispatcher.submitted(Job(2, b""), now=5) == []
    assert dispatcher.expired(now=5)[0] == Kill(0)


def test_a_job_that_was_not_begun_survives_its_worker():
    """It goes to the next worker as if it had never been sent."""
    dispatcher = busy_with_one_ahead()
    death, start = dispatcher.ended(0, "was killed", now=1, unbegun={1})
    assert (death.outcome.job_id, death.outcome.fate, start) == (0, Fate.DIED, Start(1))
    assert dispatcher.ready(1, 101, now=2) == [Send(1, Job(1, b"", timeout=5))]


def test_a_job_ahead_is_cancelled_wherever_it_is():
    """Nothing is killed before it has begun; if it has, its worker is, once the answer before is heard."""
    dispatcher = busy_with_one_ahead()
    assert dispatcher.cancelled(1, now=1) == [TakeBack(0)]
    (outcome,) = reports(dispatcher.taken_back(0, {1}, now=1))
    assert (outcome.job_id, outcome.fate) == (1, Fate.CANCELLED)

    dispatcher = busy_with_one_ahead()
    assert dispatcher.cancelled(1, now=1) == [TakeBack(0)]
    assert dispatcher.taken_back(0, (), now=1) == []
    answered, kill, cancelled = dispatcher.answered(0, 0, now=2)
    assert (answered.outcome.fate, kill) == (Fate.ANSWERED, Kill(0))
    assert (cancelled.outcome.job_id, cancelled.outcome.fate) == (1, Fate.CANCELLED)


class Worker:
    """A worker process as the system sees it: what it has been sent, and what it has answered."""

    def __init__(self):
        self.frames, self.answers, self.current = [], [], None
        self.tokens = Tokens()
        self.claims = Claims(self.tokens.reader)
        self.ahead = set()  # jobs whose tokens have been given, and neither used nor taken back

    def give(self, job):
        self.tokens.give(job.id)
        self.ahead.add(job.id)
        self.frames.append((job, True))

    def take_back(self):
        taken = self.tokens.take_back()
        assert taken <= self.ahead
        self.ahead -= taken
        return taken

    def go_on(self):
        """Read frames until there is a job to begin."""
        while self.current is None and self.frames:
            job, ahead = self.frames.pop(0)
            if not ahead or self.claims.may_begin(job.id):
                self.ahead.discard(job.id)
                self.current = job.id
                return job.id
        return None


class DispatcherMachine(RuleBasedStateMachine):
    """Any order of events, heard late: each job gets one outcome, and no two workers begin it."""

    def __init__(self):
        super().__init__()
        self.slots = 3
        self.dispatcher = Dispatcher(self.slots, patience=1000)
        self.now = 0.0
        self.jobs, self.outcomes, self.begun = {}, {}, []
        self.starting, self.ready_ones, self.gone = set(), {}, set()
        self.apply(self.dispatcher.begin(2))

    def apply(self, actions):
        todo, unheard = list(actions), []
        while todo:
            match todo.pop(0):
                case Start(worker):
                    assert worker not in self.starting | set(self.ready_ones) | self.gone
                    self.starting.add(worker)
                case Send(worker, job):
                    assert job.id not in self.outcomes
                    self.ready_ones[worker].frames.append((job, False))
                case SendAhead(worker, job):
                    assert job.id not in self.outcomes
                    self.ready_ones[worker].give(job)
                case TakeBack(worker):
                    taken = self.ready_ones[worker].take_back()
                    todo += self.dispatcher.taken_back(worker, taken, self.now)
                case Kill(worker):
                    unheard += self.bury(worker).answers
                case Report(outcome):
                    assert outcome.job_id not in self.outcomes
                    self.outcomes[outcome.job_id] = outcome.fate
        # Only an answer that nobody wants may be lost.
        assert {self.outcomes[job] for job in unheard} <= {Fate.CANCELLED}

    def bury(self, worker):
        """Take a worker away that is no more."""
        self.gone.add(worker)
        body = self.ready_ones.pop(worker)
        body.tokens.close()
        return body

    def hear(self, worker):
        """Read all that a worker has answered."""
        answers, self.ready_ones[worker].answers = self.ready_ones[worker].answers, []
        for job in answers:
            if worker in self.ready_ones:
                self.apply(self.dispatcher.answered(worker, job, self.now))

    @rule(timeout=st.none() | st.floats(0.1, 5), size=st.sampled_from([0, 0, 0, 70_000]))
    def submit(self, timeout, size):
        job = Job(len(self.jobs), bytes(size), timeout=timeout)
        self.jobs[job.id] = job
        self.apply(self.dispatcher.submitted(job, self.now))

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def ready(self, data):
        worker = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.remove(worker)
        self.ready_ones[worker] = Worker()
        self.apply(self.dispatcher.ready(worker, worker, self.now))

    @precondition(lambda self: self.ready_ones)
    @rule(data=st.data(), answers=st.booleans())
    def work(self, data, answers):
        """A worker answers, and it, or one that has answered before, goes on."""
        worker = self.ready_ones[data.draw(st.sampled_from(sorted(self.ready_ones)))]
        if answers and worker.current is not None:
            worker.answers.append(worker.current)
            worker.current = None
        elif (began := worker.go_on()) is not None:
            assert began not in self.begun, "a job is begun twice"
            self.begun.append(began)

    @precondition(lambda self: self.ready_ones)
    @rule(data=st.data())
    def listen(self, data):
        self.hear(data.draw(st.sampled_from(sorted(self.ready_ones))))

    @rule(data=st.data())
    def cancel(self, data):
        job = data.draw(st.integers(0, len(self.jobs)))
        self.apply(self.dispatcher.cancelled(job, self.now))

    @precondition(lambda self: self.starting or self.ready_ones)
    @rule(data=st.data())
    def die(self, data):
        worker = data.draw(st.sampled_from(sorted({*self.starting, *self.ready_ones})))
        unbegun = set()
        if worker in self.ready_ones:
            self.hear(worker)
            if worker not in self.ready_ones:
                return
            unbegun = self.ready_ones[worker].take_back()
            self.bury(worker)
        self.starting.discard(worker)
        self.gone.add(worker)
        self.apply(self.dispatcher.ended(worker, "died", self.now, unbegun=unbegun))

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def hear_of_one_that_is_gone(self, data):
        worker = data.draw(st.sampled_from(sorted(self.gone)))
        assert self.dispatcher.ended(worker, "died", self.now) == []
        assert self.dispatcher.ready(worker, worker, self.now) == []
        assert self.dispatcher.answered(worker, 0, self.now) == []
        assert self.dispatcher.taken_back(worker, {0}, self.now) == []

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds):
        """Time passes; what is there is read before anybody is blamed for it."""
        self.now += seconds
        for worker in list(self.ready_ones):
            if worker in self.ready_ones:
                self.hear(worker)
        for _ in range(2):  # what is ahead is taken back first
            self.apply(self.dispatcher.expired(self.now))
        assert self.dispatcher.deadline is None or self.dispatcher.deadline > self.now, "nobody ends it"

    @invariant()
    def jobs_are_accounted_for(self):
        assert self.dispatcher.pending == len(self.jobs) - len(self.outcomes)

    @invariant()
    def what_is_done_is_answered(self):
        """An answer is never thrown away, whatever becomes of its worker."""
        given = {job for worker in self.ready_ones.values() for job in worker.answers}
        assert given.isdisjoint(self.outcomes)

    @invariant()
    def no_worker_is_idle_while_a_job_waits(self):
        workers = len(self.starting) + len(self.ready_ones)
        assert workers <= self.slots
        # Jobs that no worker has, or could begin: these wait.
        held = [job.id for w in self.ready_ones.values() for job, ahead in w.frames if not ahead]
        held += [w.current for w in self.ready_ones.values() if w.current is not None]
        held += [job for w in self.ready_ones.values() for job in [*w.answers, *w.ahead]]
        waiting = set(self.jobs) - set(self.outcomes) - set(held)
        idle = [w for w in self.ready_ones.values() if w.current is None and not w.frames and not w.answers]
        assert not (waiting and idle)
        assert not waiting or workers == self.slots or len(self.starting) >= len(waiting)
        behind = [w for w in self.ready_ones.values() if w.ahead and w.current is not None]
        assert not (behind and idle)
        assert not behind or workers == self.slots

    def teardown(self):
        """Let all of them finish: nothing is left without an outcome."""
        for _ in range(20 * (len(self.jobs) + 1)):
            for worker in list(self.starting):
                self.starting.remove(worker)
                self.ready_ones[worker] = Worker()
                self.apply(self.dispatcher.ready(worker, worker, self.now))
            for number, worker in list(self.ready_ones.items()):
                if worker.current is not None:
                    worker.answers.append(worker.current)
                    worker.current = None
                worker.go_on()
                if number in self.ready_ones:
                    self.hear(number)
        for worker in list(self.ready_ones):
            self.bury(worker)
        assert set(self.outcomes) == set(self.jobs)


TestDispatcher = DispatcherMachine.TestCase
TestDispatcher.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
