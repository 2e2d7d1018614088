"""Everything that a binding can do, in any order and with failures at every hook point: a pristine model."""

import contextlib

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from patch_material import evaluator_of, net, train, train_on
from torch import nn

from rebind import bind
from rebind.testing import assert_pristine

COUNTS = st.integers(0, 3)
MODULES = st.sampled_from(["", "fc1", "norm", "fc2"])


class InjectedError(Exception):
    """What a hook point raises when its time has come."""


class Patching(RuleBasedStateMachine):
    """One binding at a time on one model, which is checked each time when the binding is closed."""

    @initialize(ignores=st.booleans())
    def create(self, ignores):
        self.model, self.binding, self.fuse = net(), None, -1
        self.evaluator = evaluator_of(
            self.model, train_on if ignores else train, evaluating_func=lambda model: float(model.training)
        )

    def tick(self, *given):
        """Fail when the fuse has burnt down; else give back the loss or nothing."""
        self.fuse -= 1
        if self.fuse == 0:
            raise InjectedError
        return given[0] if len(given) == 1 and isinstance(given[0], torch.Tensor) else None

    @precondition(lambda self: self.binding is None)
    @rule()
    def bind(self):
        self.pristine = contextlib.ExitStack()
        self.pristine.enter_context(assert_pristine(self.model))
        self.binding, self.handles, self.steps = bind(self.evaluator, self.model), [], 0

    @precondition(lambda self: self.binding)
    @rule()
    def patch_loss(self):
        self.handles.append(self.binding.patch_loss(lambda loss: self.tick(loss) * 1.0))

    @precondition(lambda self: self.binding)
    @rule()
    def patch_criterion(self):
        def wrap(criterion):
            return lambda out, y: (self.tick(), criterion(out, y))[1]

        self.handles.append(self.binding.patch_criterion(wrap))

    @precondition(lambda self: self.binding)
    @rule(before=st.booleans())
    def add_task(self, before):
        add = self.binding.before_step if before else self.binding.after_step
        self.handles.append(add(self.tick))

    @precondition(lambda self: self.binding)
    @rule(name=MODULES, backward=st.booleans())
    def hook(self, name, backward):
        add = self.binding.backward_hook if backward else self.binding.forward_hook
        self.handles.append(add(name, self.tick))

    @precondition(lambda self: self.binding)
    @rule()
    def hook_gradient(self):
        self.handles.append(self.binding.gradient_hook("fc1.weight", self.tick))

    @precondition(lambda self: self.binding)
    @rule(name=MODULES, source=st.sampled_from(["output", "input", "grad_output"]), keep=st.integers(1, 3))
    def collect(self, name, source, keep):
        self.handles.append(self.binding.collect(name, keep=keep, source=source))

    @precondition(lambda self: self.binding)
    @rule()
    def listen(self):
        self.handles.append(self.binding.on_event(lambda _: self.tick()))

    @precondition(lambda self: self.binding)
    @rule(name=st.sampled_from(["", "fc1", "fc2.weight"]))
    def add_parameters(self, name):
        self.handles.append(self.binding.add_parameters({name: [nn.Parameter(torch.ones(2))]}))

    @precondition(lambda self: self.binding and self.handles)
    @rule(data=st.data())
    def revert(self, data):
        self.handles.pop(data.draw(st.integers(0, len(self.handles) - 1))).revert()

    @precondition(lambda self: self.binding)
    @rule(steps=COUNTS)
    def train(self, steps):
        before, self.fuse = self.binding.steps, -1
        self.binding.train(max_steps=steps)
        assert self.binding.steps == before + steps

    @precondition(lambda self: self.binding)
    @rule(steps=COUNTS, fuse=st.integers(1, 25))
    def train_until_something_fails(self, steps, fuse):
        before, self.fuse = self.binding.steps, fuse
        with contextlib.suppress(InjectedError):
            self.binding.train(max_steps=steps)
        self.fuse = -1
        assert self.binding.steps <= before + steps

    @precondition(lambda self: self.binding)
    @rule()
    def evaluate(self):
        self.model.train()
        assert self.binding.evaluate().score == 1.0

    @precondition(lambda self: self.binding)
    @rule()
    def rebind(self):
        self.binding.rebind(self.model, state="carry")

    @precondition(lambda self: self.binding)
    @rule()
    def go_back(self):
        state = self.binding.state_dict()
        self.binding.load_state_dict(state)

    @precondition(lambda self: self.binding)
    @rule()
    def close(self):
        optimizer = self.binding.optimizers[0]
        self.binding.close()
        self.binding = None
        self.pristine.close()
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks

    def teardown(self):
        if getattr(self, "binding", None):
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
    settings = settings(max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=CHECKS)
