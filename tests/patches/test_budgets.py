"""Limits on a training, kept to the step; the oracle is a plain loop of just so many steps."""

import threading
import time

import pytest
import torch
from patch_material import (
    BATCHES,
    TARGETS,
    assert_same,
    bound,
    by_hand,
    exponential,
    net,
    steps_by_hand,
    train,
    train_on,
)

from rebind import BindError, TrainingError


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("loop", [train, train_on])
def test_max_steps_leave_what_a_loop_of_so_many_steps_leaves(loop, steps):
    """Weights, batch-norm statistics, scheduler and random numbers, whether or not the function counts."""
    with bound(training_func=loop, schedule=exponential) as binding:
        binding.train(max_steps=steps)
        assert binding.steps == steps
        assert binding.lr_schedulers[0].last_epoch == steps
        ours = torch.get_rng_state()
    assert_same(binding.model, by_hand(steps_by_hand(steps), schedule=exponential))
    assert torch.equal(ours, torch.get_rng_state())
    assert binding.model.norm.num_batches_tracked == steps


def test_what_follows_the_last_step_still_runs():
    """The scheduler's step and a log line, but no further batch."""
    log = []

    def loop(model, optimizers, criterion, lr_schedulers):
        model.train()
        for x, y in zip(BATCHES, TARGETS, strict=True):
            optimizers.zero_grad()
            criterion(model(x), y).backward()
            optimizers.step()
            lr_schedulers.step()
            log.append("line")

    with bound(training_func=loop, schedule=exponential) as binding:
        binding.train(max_steps=3)
    assert len(log) == 3


@pytest.mark.parametrize("limit", [{"max_steps": 0}, {"max_epochs": 0}, {"timeout": 0}, {"timeout": 0.0}])
def test_zero_trains_nothing(limit):
    """The function is not even called."""

    def loop(model, optimizers, criterion, max_steps=None, max_epochs=None):
        pytest.fail("was called")

    with bound(training_func=loop) as binding:
        binding.train(**limit)
        assert binding.steps == 0


@pytest.mark.parametrize(
    "limit",
    [{"max_steps": -1}, {"max_steps": 1.5}, {"max_steps": True}, {"max_steps": "3"}]
    + [{"timeout": -1}, {"timeout": float("nan")}, {"max_epochs": -2}],
)
def test_what_is_no_limit_is_refused(limit):
    with bound() as binding, pytest.raises(TrainingError, match=next(iter(limit))):
        binding.train(**limit)


def test_epochs_go_to_a_function_that_takes_them_and_are_refused_for_others():
    got = []
    with bound(
        training_func=lambda model, optimizers, criterion, max_epochs: got.append(max_epochs)
    ) as binding:
        binding.train(max_epochs=3)
        binding.finetune()
    assert got == [3, None]
    with bound() as binding, pytest.raises(TrainingError, match="training_func does not take it"):
        binding.train(max_epochs=3)


def test_finetuning_has_no_limit():
    with bound(training_func=train_on) as binding:
        binding.finetune()
        assert binding.steps == 64


def test_a_timeout_ends_after_whole_steps():
    """Some steps are made, not all, and the model is that of a loop of so many steps."""

    def slow(model, optimizers, criterion):
        train(model, optimizers, lambda *inputs: (time.sleep(0.02), criterion(*inputs))[1], max_steps=100)

    with bound(training_func=slow) as binding:
        binding.train(timeout=0.2)
        steps = binding.steps
    assert 1 <= steps <= 12
    assert binding.model.norm.num_batches_tracked == steps
    assert_same(binding.model, by_hand(steps_by_hand(steps)))


@pytest.mark.parametrize("where", ["before_step", "after_step", "patch_loss", "event", "forward"])
def test_a_stop_from_within_ends_after_the_step_under_way(where):
    """From a task, a patch, a listener or a hook: the weights are those of that many steps."""
    calls = []

    with bound(training_func=train_on, schedule=exponential) as binding:

        def stop_at_third(*given):
            calls.append(1)
            if len(calls) == 3:
                binding.stop()
            return given[0] if given and where == "patch_loss" else None

        if where == "event":
            binding.on_event(lambda event: stop_at_third() if event.kind == "step" else None)
        elif where == "forward":
            binding.forward_hook("", stop_at_third)
        else:
            getattr(binding, where)(stop_at_third)
        binding.train()
        assert binding.steps == 3
    assert_same(binding.model, by_hand(steps_by_hand(3), schedule=exponential))


def test_a_stop_before_the_first_step_makes_none():
    with bound(training_func=train_on) as binding:
        binding.on_event(lambda event: binding.stop() if event.kind == "begin" else None)
        binding.train()
        assert binding.steps == 0
    assert_same(binding.model, net())


def test_a_stop_from_another_thread_ends_after_whole_steps():
    """The loop would run for ever."""
    running = threading.Event()

    def forever(model, optimizers, criterion):
        while True:
            train(model, optimizers, criterion, max_steps=1)

    with bound(training_func=forever) as binding:

        def stop():
            running.wait()
            binding.stop()

        binding.after_step(running.set)
        thread = threading.Thread(target=stop)
        thread.start()
        binding.train()
        thread.join()
        steps = binding.steps
        assert binding.model.norm.num_batches_tracked == steps >= 1
        binding.train(max_steps=2)
        assert binding.steps == steps + 2


def test_a_stop_outside_of_a_training_does_nothing():
    with bound() as binding:
        binding.stop()
        binding.train(2)
        assert binding.steps == 2


def test_a_loop_that_catches_exceptions_does_not_swallow_the_end():
    """`except Exception` around a batch lets it through; `finally` runs."""
    ended = []

    def careful(model, optimizers, criterion):
        for x, y in zip(BATCHES, TARGETS, strict=True):
            try:
                optimizers.zero_grad()
                criterion(model(x), y).backward()
                optimizers.step()
            except Exception:
                continue
            finally:
                ended.append(1)

    with bound(training_func=careful) as binding:
        binding.train(max_steps=4)
        assert binding.steps == 4
    assert len(ended) == 5


def test_a_loop_that_catches_everything_makes_no_step_too_many():
    def stubborn(model, optimizers, criterion):
        for x, y in zip(BATCHES, TARGETS, strict=True):
            try:
                optimizers.zero_grad()
                criterion(model(x), y).backward()
                optimizers.step()
            except BaseException:
                continue

    with bound(net().eval(), stubborn) as binding:
        binding.train(max_steps=4)
        assert binding.steps == 4


def test_validation_after_the_last_step_still_runs():
    """The model in eval mode may be run as often as the loop likes."""

    def loop(model, optimizers, criterion):
        train(model, optimizers, criterion, max_steps=3)
        model.eval()
        scores.append(model(BATCHES[0]).sum().item())

    scores = []
    with bound(training_func=loop) as binding:
        binding.train(max_steps=3)
    assert len(scores) == 1


def test_a_training_within_a_training_is_refused_and_one_of_another_binding_works():
    """The end of the inner one is not taken for the end of the outer one, nor the other way round."""
    inner = bound(net(1), train_on)
    with bound(training_func=train_on) as outer:
        outer.after_step(lambda: inner.train(max_steps=2))
        outer.train(max_steps=3)
        assert (outer.steps, inner.steps) == (3, 6)
    inner.after_step(lambda: outer_model(torch.ones(4, 2)))
    outer_model = net(2)
    with bound(outer_model, lambda model, optimizers, criterion: inner.train(5)) as outer:
        outer.train(max_steps=1)
    inner.close()
    with bound(training_func=lambda *_: binding.train(1)) as binding:
        with pytest.raises(TrainingError, match="training already"):
            binding.train(1)
    with bound(training_func=train_on) as binding:
        binding.after_step(lambda: binding.rebind(net(1)))
        with pytest.raises(BindError, match="before the training has ended"):
            binding.train(1)


def test_a_binding_closed_by_its_own_training_makes_no_further_step():
    with bound(training_func=train_on) as binding:
        binding.after_step(binding.close)
        binding.train()
        assert binding.steps == 1
        assert not binding.model._forward_pre_hooks
        assert not binding.optimizers[0]._optimizer_step_pre_hooks


@pytest.mark.parametrize("wrap", [True, False])
def test_compiled_models_stop_exactly(wrap):
    """Batch norm has seen as many batches as there were steps."""
    model = net()
    compiled = torch.compile(model, backend="eager") if wrap else model
    if not wrap:
        model.compile(backend="eager")
    with bound(compiled, train_on) as binding:
        binding.train(max_steps=3)
        binding.train(max_steps=2)
        assert binding.steps == 5
    assert model.norm.num_batches_tracked == 5


def test_each_of_several_optimizers_makes_its_steps():
    """LBFGS counts steps, not evaluations; of several optimizers none makes more than its share."""

    def closures(model, optimizers, criterion):
        for x, y in zip(BATCHES, TARGETS, strict=True):

            def closure(x=x, y=y):
                optimizers.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                return loss

            optimizers.step(closure)

    with bound(net().eval(), closures, make=lambda p: torch.optim.LBFGS(p, lr=0.1)) as binding:
        seen = []
        binding.after_step(lambda: seen.append(1))
        binding.train(max_steps=3)
        assert len(seen) == binding.steps == 3
