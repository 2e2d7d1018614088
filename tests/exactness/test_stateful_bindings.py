"""Bindings in any order: bound, trained, failed, bound anew, closed, and carried through bytes."""

import contextlib

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

import rebind
from rebind.testing import construct_directly, evaluators, models
from rebind.testing.checks import assert_pristine
from rebind.testing.curves import step_once
from rebind.testing.loops import score
from rebind.testing.portraits import portrait_of, weights_of


class StopTrainingError(Exception):
    """What a training function raises when it is told to."""


# What torch raises in a step that it cannot make.
REFUSALS = (NotImplementedError, TypeError, ValueError)
# The step at which the training function fails, if it does.
failing_at = [-1]


def train(model, optimizers, criterion, lr_schedulers=None, max_steps=0):
    for number in range(max_steps):
        if number == failing_at[0]:
            raise StopTrainingError
        step_once(model, optimizers, lr_schedulers or [], number)


class Bound:
    """A binding, and beside it the same thing built and trained by hand."""

    def __init__(self, evaluator, model, twin):
        self.model, self.twin = model, twin
        self.pristine = contextlib.ExitStack()
        self.pristine.enter_context(assert_pristine(model))
        self.binding = rebind.bind(evaluator, model)
        self.direct = construct_directly(evaluator, twin)

    def train(self, steps):
        for number in range(steps):
            step_once(self.twin, *self.direct, number)


class Bindings(RuleBasedStateMachine):
    """Any number of bindings of one evaluator live side by side, and none touches another."""

    bound_ones = Bundle("bound_ones")

    @initialize(data=st.data())
    def create(self, data):
        self.model = data.draw(models())
        drawn = data.draw(evaluators(self.model))
        fields = drawn.fields()
        listed = {name: fields[name] for name in ("optimizers", "lr_schedulers")}
        listed = {name: v if isinstance(v, tuple) or v is None else (v,) for name, v in listed.items()}
        self.evaluator = type(drawn).from_fields({**fields, **listed, "training_func": train})
        self.first, self.alive = self.evaluator, []

    @rule(target=bound_ones, width=st.integers(1, 5), seed=st.integers(0, 5))
    def bind(self, width, seed):
        bound = Bound(self.evaluator, self.model.similar(width, seed), self.model.similar(width, seed))
        self.alive.append(bound)
        return bound

    @rule(bound=bound_ones, steps=st.integers(0, 4))
    def train(self, bound, steps):
        """A step that torch refuses (some nested schedulers do) is refused on both sides."""
        try:
            bound.train(steps)
        except REFUSALS as error:
            with pytest.raises(type(error)):
                bound.binding.train(max_steps=steps)
        else:
            bound.binding.train(max_steps=steps)

    @rule(bound=bound_ones, steps=st.integers(0, 2))
    def fail(self, bound, steps):
        expected = StopTrainingError
        try:
            bound.train(steps)
        except REFUSALS as error:
            expected = type(error)
        failing_at[0] = steps
        try:
            with pytest.raises(expected):
                bound.binding.train(max_steps=steps + 1)
        finally:
            failing_at[0] = -1

    @rule(bound=bound_ones)
    def evaluate(self, bound):
        assert bound.binding.evaluate().score == score(bound.twin)

    @rule(bound=bound_ones, width=st.integers(1, 5))
    def fail_to_bind(self, bound, width):
        stranger = torch.nn.ParameterDict({"unheard_of": torch.nn.Parameter(torch.ones(width))})
        with assert_pristine(stranger), pytest.raises(rebind.BindError):
            rebind.bind(self.evaluator, stranger)

    @rule(bound=bound_ones, width=st.integers(1, 5), seed=st.integers(0, 5))
    def rebind(self, bound, width, seed):
        model, twin = self.model.similar(width, seed), self.model.similar(width, seed)
        bound.binding.rebind(model)
        bound.pristine.close()
        bound.pristine.enter_context(assert_pristine(model))
        bound.model, bound.twin = model, twin
        bound.direct = construct_directly(self.evaluator, twin)

    @rule(bound=consumes(bound_ones))
    def close(self, bound):
        self.alive.remove(bound)
        bound.binding.close()
        bound.pristine.close()
        bound.binding.close()
        with pytest.raises(rebind.BindError):
            bound.binding.train(max_steps=1)
        assert weights_of(bound.model) == weights_of(bound.twin)

    @rule()
    def carry(self):
        self.evaluator = rebind.loads(rebind.dumps(self.evaluator), trusted=True)

    @invariant()
    def every_binding_is_what_direct_construction_is(self):
        for bound in getattr(self, "alive", ()):
            assert weights_of(bound.model) == weights_of(bound.twin)
            bindings = portrait_of(bound.model, *bound.binding.optimizers, *bound.binding.lr_schedulers)
            directly = portrait_of(bound.twin, *bound.direct[0], *bound.direct[1])
            assert bindings == directly

    @invariant()
    def the_evaluator_stays_the_same(self):
        if hasattr(self, "evaluator"):
            assert self.evaluator == self.first

    def teardown(self):
        for bound in getattr(self, "alive", ()):
            bound.binding.close()
            bound.pristine.close()


# torch warns of some orders of steps that are legal.
TestBindings = pytest.mark.filterwarnings("ignore::UserWarning")(Bindings.TestCase)
TestBindings.settings = settings(
    max_examples=12,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
