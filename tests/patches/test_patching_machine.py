"""Everything that a binding can do, in any order and with failures at every hook point: a pristine model."""

import contextlib

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from patch_material import evaluator_of, net, train, train_on
from torch import nn

from rebind import BindError, bind
from rebind.testing import assert_pristine


class InjectedError(Exception):
    """What a hook point raises when its time has come."""


ERRORS = st.sampled_from([InjectedError, KeyboardInterrupt])
COUNTS = st.integers(0, 3)
MODULES = st.sampled_from(["", "fc1", "norm", "fc2"])


class Patching(RuleBasedStateMachine):
    """One binding at a time on one model, which is checked each time when the binding is closed."""

    steps_made = 0

    def __init__(self):
        super().__init__()
        self.opened, self.handles, self.fuse = None, [], -1

    @initialize(ignores=st.booleans())
    def create(self, ignores):
        self.model = net()
        self.evaluator = evaluator_of(
            self.model, train_on if ignores else train, evaluating_func=lambda model: self.scored(model)
        )

    def scored(self, model):
        self.tick()
        return float(model.training)

    def tick(self, *given):
        """Fail when the fuse has burnt down; else give back the loss or nothing."""
        self.fuse -= 1
        if self.fuse == 0:
            raise self.error
        return given[0] if len(given) == 1 and isinstance(given[0], torch.Tensor) else None

    @property
    def binding(self):
        """The binding, made where there is none."""
        if self.opened is None:
            self.pristine = contextlib.ExitStack()
            self.pristine.enter_context(assert_pristine(self.model))
            self.opened = bind(self.evaluator, self.model)
        return self.opened

    @contextlib.contextmanager
    def failing(self, fuse, error):
        """Let the hook point fail that comes after so many others."""
        self.fuse, self.error = fuse, error
        try:
            with contextlib.suppress(InjectedError, KeyboardInterrupt):
                yield
        finally:
            self.fuse = -1

    @rule()
    def patch_loss(self):
        self.handles.append(self.binding.patch_loss(lambda loss: self.tick(loss) * 1.0))

    @rule()
    def patch_criterion(self):
        def wrap(criterion):
            return lambda out, y: (self.tick(), criterion(out, y))[1]

        self.handles.append(self.binding.patch_criterion(wrap))

    @rule(before=st.booleans())
    def add_task(self, before):
        add = self.binding.before_step if before else self.binding.after_step
        self.handles.append(add(self.tick))

    @rule(name=MODULES, backward=st.booleans())
    def hook(self, name, backward):
        add = self.binding.backward_hook if backward else self.binding.forward_hook
        self.handles.append(add(name, self.tick))

    @rule()
    def hook_gradient(self):
        self.handles.append(self.binding.gradient_hook("fc1.weight", self.tick))

    @rule(name=MODULES, source=st.sampled_from(["output", "input", "grad_output"]), keep=st.integers(1, 3))
    def collect(self, name, source, keep):
        self.handles.append(self.binding.collect(name, keep=keep, source=source))

    @rule()
    def listen(self):
        self.handles.append(self.binding.on_event(lambda _: self.tick()))

    @rule(name=st.sampled_from(["", "fc1", "fc2.weight"]))
    def add_parameters(self, name):
        self.handles.append(self.binding.add_parameters({name: [nn.Parameter(torch.ones(2))]}))

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def revert(self, data):
        self.handles.pop(data.draw(st.integers(0, len(self.handles) - 1))).revert()

    @rule(steps=COUNTS)
    def train(self, steps):
        before, self.fuse = self.binding.steps, -1
        self.binding.train(max_steps=steps)
        assert self.binding.steps == before + steps

    @rule(steps=COUNTS, fuse=st.integers(1, 25), error=ERRORS)
    def train_until_something_fails(self, steps, fuse, error):
        before = self.binding.steps
        with self.failing(fuse, error):
            self.binding.train(max_steps=steps)
        assert self.binding.steps <= before + steps

    @rule(fuse=st.integers(1, 4), error=ERRORS)
    def evaluate_until_something_fails(self, fuse, error):
        with self.failing(fuse, error):
            self.binding.evaluate()

    @rule()
    def bind_what_does_not_fit(self):
        stranger = nn.Sequential(nn.Linear(2, 2))
        with assert_pristine(stranger), pytest.raises(BindError):
            bind(self.evaluator, stranger)
        with assert_pristine(stranger), pytest.raises(BindError):
            self.binding.rebind(stranger)

    @rule(state=st.sampled_from(["fresh", "carry"]))
    def rebind_to_another(self, state):
        """The model before is given back at once, and this one when the binding is closed."""
        another, before = net(), self.binding.steps
        leaving, self.pristine = self.pristine, contextlib.ExitStack()
        self.pristine.enter_context(assert_pristine(another))
        self.binding.rebind(another, state=state)
        leaving.close()
        self.model = another
        assert self.binding.steps == before

    @rule()
    def evaluate(self):
        self.model.train()
        assert self.binding.evaluate().score == 1.0

    @rule()
    def rebind(self):
        self.binding.rebind(self.model, state="carry")

    @rule()
    def go_back(self):
        state = self.binding.state_dict()
        self.binding.load_state_dict(state)

    @rule()
    def close(self):
        optimizer = self.binding.optimizers[0]
        self.binding.close()
        self.opened, self.handles = None, []
        self.pristine.close()
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks

    @invariant()
    def count(self):
        Patching.steps_made += 1

    def teardown(self):
        if self.opened is not None:
            self.close()


# torch's own notice to whoever puts a backward hook on the first module.
FIRST_MODULE = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]


@FIRST_MODULE
class TestPatching(Patching.TestCase):
    settings = settings(max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=CHECKS)


@FIRST_MODULE
@pytest.mark.long
@pytest.mark.timeout(3600)
class TestPatchingLong(Patching.TestCase):
    settings = settings(max_examples=250, stateful_step_count=50, deadline=None, suppress_health_check=CHECKS)

    def runTest(self):  # noqa: N802 - unittest names it
        """Ten thousand steps at the least."""
        Patching.steps_made = 0
        super().runTest()
        assert Patching.steps_made >= 10_000
        print(f"{Patching.steps_made} steps")
