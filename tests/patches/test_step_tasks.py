"""Tasks before and after optimizer steps; the oracle is a plain loop with the same lines in it."""

import itertools
import warnings

import pytest
import torch
from patch_material import (
    BATCHES,
    TARGETS,
    assert_same,
    bound,
    by_hand,
    exponential,
    mse,
    net,
    steps_by_hand,
    train,
)

from rebind import TorchEvaluator, TrainingError, bind, trace


def halve_gradients(model):
    for parameter in model.parameters():
        parameter.grad.mul_(0.5)


def clamp_weights(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-0.3, 0.3)


def test_tasks_train_as_the_same_lines_written_by_hand():
    """A change of gradients before and of weights after each step, with a scheduler: bit-equal."""
    with bound(schedule=exponential) as binding:
        binding.before_step(lambda: halve_gradients(binding.model))
        binding.after_step(lambda: clamp_weights(binding.model))
        binding.train(12)
    loop = steps_by_hand(12, before=halve_gradients, after=clamp_weights)
    assert_same(binding.model, by_hand(loop, schedule=exponential))


def test_the_last_task_is_outermost():
    """before2 before1 step after1 after2."""
    order = []
    with bound(make=lambda params: Telling(params, order)) as binding:
        for number in (1, 2):
            binding.before_step(lambda number=number: order.append(f"before{number}"))
            binding.after_step(lambda number=number: order.append(f"after{number}"))
        binding.train(2)
    assert order == ["before2", "before1", "step", "after1", "after2"] * 2


def test_a_step_that_calls_the_step_of_its_base_class_is_one_step():
    """torch hooks both; tasks run once, and the budget counts one, also after a step that failed."""
    fails = [True]

    def task():
        if fails and fails.pop():
            raise RuntimeError

    torch.optim.SGD([torch.ones(1)])  # from here on, the base class is hooked
    seen, order = [], []
    with bound(make=lambda params: Telling(params, order)) as binding:
        binding.before_step(task)
        binding.before_step(lambda: seen.append(1))
        with pytest.raises(RuntimeError):
            binding.train(3)
        binding.train(max_steps=3)
        assert binding.steps == len(order) == 3
        assert len(seen) == 4


class Telling(torch.optim.SGD):
    def __init__(self, params, order):
        super().__init__(params, lr=0.1)
        self.order = order

    def step(self, closure=None):
        loss = super().step(closure)
        self.order.append("step")
        return loss


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_tasks_revert_alone_and_in_any_order(order):
    """The others go on; the last one leaves no hook on the optimizer."""
    with bound() as binding:
        seen, left = [], [0, 1, 2, 3]
        tell = [lambda number=number: seen.append(number) for number in range(4)]
        add = [binding.before_step, binding.after_step, binding.before_step, binding.after_step]
        handles = [how(task) for how, task in zip(add, tell, strict=True)]
        optimizer = binding.optimizers[0]
        for number in order:
            handles[number].revert()
            left.remove(number)
            seen.clear()
            binding.train(1)
            assert sorted(seen) == left
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks


def test_the_same_function_may_be_added_twice():
    seen = []
    tell = lambda: seen.append(1)
    with bound() as binding:
        first = binding.after_step(tell)
        with binding.after_step(tell):
            binding.train(1)
            assert len(seen) == 2
        binding.train(1)
        assert len(seen) == 3
        first.revert()
        binding.train(1)
        assert len(seen) == 3


class Watch:
    """Notes what is true of gradients and weights around each step."""

    def __init__(self, binding, optimizer=None):
        self.binding, self.before, self.after = binding, [], []
        binding.before_step(lambda: self.before.append(self.snapshot()), optimizer)
        binding.after_step(lambda: self.after.append(self.snapshot()), optimizer)

    def snapshot(self):
        named = dict(self.binding.model.named_parameters())
        grads = {n: None if p.grad is None else p.grad.clone() for n, p in named.items()}
        return grads, {n: p.detach().clone() for n, p in named.items()}


def with_closure(model, optimizers, criterion, max_steps=4):
    for number in range(max_steps):

        def closure(number=number):
            optimizers.zero_grad()
            loss = criterion(model(BATCHES[number]), TARGETS[number])
            loss.backward()
            return loss

        optimizers.step(closure)


def by_keyword(model, optimizers, criterion, max_steps=4):
    for number in range(max_steps):

        def closure(number=number):
            optimizers.zero_grad()
            loss = criterion(model(BATCHES[number]), TARGETS[number])
            loss.backward()
            return loss

        assert optimizers.step(closure=closure) is not None


def lbfgs(params):
    return torch.optim.LBFGS(params, lr=0.1, max_iter=4)


OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.1),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.1),
    "AdamW fused": lambda params: torch.optim.AdamW(params, lr=0.1, fused=True),
    "Rprop": lambda params: torch.optim.Rprop(params, lr=0.1),
    "LBFGS": lbfgs,
}


@pytest.mark.parametrize("loop", [train, with_closure, by_keyword])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_means_gradients_ready_and_after_means_weights_changed(name, loop):
    """The gradients are those that autograd gives for the weights of before; the task runs once a step."""
    if name == "LBFGS" and loop is train:
        pytest.skip("LBFGS needs a closure")
    model = net().eval()
    model.drop.p = 0.0
    with bound(model, loop, make=OPTIMIZERS[name]) as binding:
        watch = Watch(binding)
        binding.train(max_steps=4)
    assert len(watch.before) == len(watch.after) == 4
    twin = net().eval()
    twin.drop.p = 0.0
    twin.train(loop is train)
    for number, ((grads, weights), (_, changed)) in enumerate(zip(watch.before, watch.after, strict=True)):
        with torch.no_grad():
            for parameter_name, parameter in twin.named_parameters():
                parameter.copy_(weights[parameter_name])
        twin.zero_grad()
        mse(twin(BATCHES[number]), TARGETS[number]).backward()
        for parameter_name, parameter in twin.named_parameters():
            assert torch.equal(parameter.grad, grads[parameter_name])
        assert not torch.equal(weights["fc2.weight"], changed["fc2.weight"])
        if number:
            assert torch.equal(weights["fc2.weight"], watch.after[number - 1][1]["fc2.weight"])


def two(model, optimizers, criterion):
    """As a GAN: two optimizers, each with its own loss, the second every other time."""
    for number in range(6):
        for index, optimizer in enumerate(optimizers):
            if index and number % 2:
                continue
            optimizer.zero_grad()
            criterion(model(BATCHES[number]), TARGETS[number]).backward()
            optimizer.step()


def two_bound(training_func=two):
    model = net()
    optimizers = [
        trace(torch.optim.SGD)(model.fc1.parameters(), lr=0.1),
        trace(torch.optim.Adam)(model.fc2.parameters(), lr=0.1),
    ]
    return bind(TorchEvaluator(training_func, optimizers, mse, model=model), model)


def test_tasks_run_for_every_optimizer_or_for_the_one_that_is_named():
    seen = []
    with two_bound() as binding:
        binding.before_step(lambda: seen.append("all"))
        binding.before_step(lambda: seen.append("0"), optimizer=0)
        binding.after_step(lambda: seen.append("1"), optimizer=1)
        binding.train()
        for wrong in (-1, 2):
            with pytest.raises(TrainingError, match="none of the 2 optimizers"):
                binding.before_step(print, optimizer=wrong)
    assert (seen.count("all"), seen.count("0"), seen.count("1")) == (9, 6, 3)


def test_tasks_follow_to_the_optimizers_of_another_model():
    seen = []
    with bound() as binding:
        handle = binding.after_step(lambda: seen.append(1))
        old = binding.optimizers[0]
        binding.rebind(net(1))
        assert not old._optimizer_step_post_hooks
        binding.train(2)
        assert len(seen) == 2
        handle.revert()
        binding.train(2)
        assert len(seen) == 2


def test_with_gradient_accumulation_tasks_run_once_for_the_accumulated_gradient():
    def loop(model, optimizers, criterion):
        for first in (0, 4):
            optimizers.zero_grad()
            for number in range(first, first + 4):
                (criterion(model(BATCHES[number]), TARGETS[number]) / 4).backward()
            optimizers.step()

    with bound(net().eval(), loop) as binding:
        watch = Watch(binding)
        binding.train()
    assert len(watch.before) == 2
    twin = net().eval()
    (sum(mse(twin(BATCHES[number]), TARGETS[number]) for number in range(4)) / 4).backward()
    torch.testing.assert_close(watch.before[0][0]["fc1.weight"], twin.fc1.weight.grad)


def scaled(poisoned=(), unscale=False):
    """A loop with GradScaler; the gradients of some steps are infinite."""

    def loop(model, optimizers, criterion):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for number in range(6):
            optimizers.zero_grad()
            loss = criterion(model(BATCHES[number]), TARGETS[number])
            scaler.scale(loss).backward()
            if number in poisoned:
                model.fc1.weight.grad.fill_(float("inf"))
            if unscale:
                scaler.unscale_(optimizers)
            scaler.step(optimizers)
            scaler.update()

    return loop


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_grad_scaler_shows_tasks_unscaled_gradients_and_no_skipped_step(make, fused, unscale):
    """Skipped steps run no task and count for no budget; the weights are those without tasks."""
    build = lambda params: make(params, lr=0.05, fused=fused)
    model = net().eval()
    with bound(model, scaled({1, 3}, unscale=unscale), make=build) as binding:
        watch = Watch(binding)
        binding.train()
        assert binding.steps == 4
        assert not hasattr(binding.optimizers[0], "grad_scale")
    assert len(watch.before) == len(watch.after) == 4
    twin = net().eval()
    scaled({1, 3}, unscale=unscale)(twin, build(twin.parameters()), mse)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-6, atol=1e-7)
    twin = net().eval()
    mse(twin(BATCHES[0]), TARGETS[0]).backward()
    torch.testing.assert_close(watch.before[0][0]["fc1.weight"], twin.fc1.weight.grad)


@pytest.mark.parametrize("fused", [False, True])
def test_skipped_steps_do_not_spend_the_budget(fused):
    build = lambda params: torch.optim.SGD(params, lr=0.05, fused=fused)
    with bound(training_func=scaled({0, 1}), make=build) as binding:
        binding.train(max_steps=6)
        assert binding.steps == 4
        binding.finetune()
        assert binding.steps == 8


def test_no_task_runs_for_a_step_that_a_budget_does_not_allow():
    """Also where the loop never runs the model itself, so that it ends only at a step too many."""

    def loop(model, optimizers, criterion):
        for x, y in zip(BATCHES, TARGETS, strict=True):
            optimizers.zero_grad()
            criterion(model.fc2(model.fc1(x)), y).backward()
            optimizers.step()

    seen = []
    with bound(training_func=loop) as binding:
        binding.before_step(lambda: seen.append("before"))
        binding.after_step(lambda: seen.append("after"))
        binding.train(max_steps=3)
    assert seen == ["before", "after"] * 3


def test_step_patches_do_not_make_schedulers_warn():
    """Neither that step() was overridden nor that the order is wrong; nothing is on the class."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with bound(schedule=exponential) as binding:
            step = type(binding.optimizers[0]).step
            binding.before_step(lambda: None)
            binding.after_step(lambda: None)
            binding.train(3)
            assert type(binding.optimizers[0]).step is step


@pytest.mark.parametrize("when", ["before_step", "after_step"])
def test_an_exception_in_a_task_comes_out_and_the_binding_goes_on(when):
    with bound() as binding:
        handle = getattr(binding, when)(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            binding.train(5)
        assert binding.steps == (when == "after_step")
        handle.revert()
        binding.train(5)
        assert binding.steps == 5 + (when == "after_step")
