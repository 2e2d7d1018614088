"""Limits of a fit are kept to the step, whatever limits the recorded Trainer has."""

import time

import pytest
import pytorch_lightning as pl
import torch
from lightning_material import QUIET, Data, Net, assert_same, by_own_trainer, evaluator_of, mse, net
from pytorch_lightning.callbacks import EarlyStopping

from rebind import TrainingError, bind


@pytest.mark.parametrize("form", ["optimizer", "manual one", "manual several"])
@pytest.mark.parametrize("steps", [1, 5, 8, 21])
def test_exactly_max_steps_steps_of_each_optimizer_are_made(form, steps):
    """Also more than the Trainer's own two epochs of eight batches, and across the end of an epoch."""
    model, counts = net(form), [0, 0]
    with bind(evaluator_of(), model) as binding:

        def count(index):
            counts[index] += 1

        for index in range(len(binding.optimizers)):
            binding.after_step(lambda index=index: count(index), optimizer=index)
        torch.manual_seed(1)
        binding.train(max_steps=steps)
        assert counts[: len(binding.optimizers)] == [steps] * len(binding.optimizers)
        assert binding.steps == steps
    limits = {"max_epochs": -1, "max_steps": steps * len(binding.optimizers)}
    assert_same(model, by_own_trainer(form, **limits))


@pytest.mark.parametrize("limits", [{"max_steps": 0}, {"max_epochs": 0}, {"timeout": 0}])
def test_a_limit_of_0_trains_nothing(limits):
    model = net()
    with bind(evaluator_of(), model) as binding:
        binding.train(**limits)
    assert_same(model, net())


def test_epochs_are_counted_by_lightning_beyond_the_trainers_own_limits():
    model = net()
    with bind(evaluator_of(max_epochs=1, max_steps=4, max_time="00:00:00:01"), model) as binding:
        torch.manual_seed(1)
        binding.train(max_epochs=3)
        assert binding.steps == 24
    assert_same(model, by_own_trainer(max_epochs=3))


def test_the_first_of_two_limits_ends_a_training():
    with bind(evaluator_of(), net()) as binding:
        binding.train(max_steps=100, max_epochs=2)
        assert binding.steps == 16
        binding.train(max_steps=3, max_epochs=2)
        assert binding.steps == 19


def test_finetuning_has_the_trainers_own_limits():
    with bind(evaluator_of(max_epochs=-1, max_steps=5), net()) as binding:
        binding.finetune()
        assert binding.steps == 5


def test_what_a_trainer_does_at_least_is_no_reason_to_go_on():
    with bind(evaluator_of(max_epochs=9, min_epochs=5, min_steps=30), net()) as binding:
        binding.train(max_steps=3)
        assert binding.steps == 3
        binding.after_step(binding.stop)
        binding.finetune()
        assert binding.steps == 4


def test_a_binding_is_stopped_from_a_task_and_trains_again():
    with bind(evaluator_of(), net()) as binding:
        handle = binding.after_step(lambda: binding.stop() if binding.steps == 3 else None)
        binding.train()
        assert binding.steps == 3
        handle.revert()
        binding.train(max_steps=2)
        assert binding.steps == 5


class Deciding(pl.Callback):
    """Says after each batch whether to stop, whoever else has said so."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = False


def test_a_callback_that_decides_after_each_batch_does_not_undo_a_stop():
    with bind(evaluator_of(callbacks=[Deciding()]), net()) as binding:
        binding.after_step(binding.stop)
        binding.train(max_steps=7)
        assert binding.steps == 1


def test_a_stop_before_the_first_step_ends_the_training_after_the_first_batch():
    model = net()
    with bind(evaluator_of(accumulate_grad_batches=4), model) as binding:
        binding.on_event(lambda event: binding.stop() if event.kind == "begin" else None)
        binding.train(max_steps=3)
        assert binding.steps == 0
    assert model.norm.num_batches_tracked == 1


def test_a_timeout_ends_the_training_after_the_step_under_way():
    with bind(evaluator_of(), net()) as binding:
        binding.after_step(lambda: time.sleep(0.02))
        began = time.monotonic()
        binding.train(max_steps=100_000, timeout=0.1)
        assert 1 <= binding.steps < 20
        assert time.monotonic() - began < 5


class Adversarial(Net):
    """One optimizer makes three steps while the other makes one."""

    def manual_step(self, batch):
        x, y = batch
        first, second = self.optimizers()
        for optimizer in (first, first, first, second):
            optimizer.zero_grad()
            self.manual_backward(mse(self(x), y))
            optimizer.step()


class Alternating(Net):
    """The optimizers take turns, batch by batch."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        optimizer = self.optimizers()[batch_idx % 2]
        optimizer.zero_grad()
        self.manual_backward(mse(self(x), y))
        optimizer.step()


@pytest.mark.parametrize(("kind", "expected"), [(Adversarial, [5, 1]), (Alternating, [5, 5])])
def test_no_optimizer_makes_more_steps_than_it_may(kind, expected):
    """Lightning counts all steps together; a training ends at the latest before one step too many."""
    model, counts = net("manual several", kind=kind), [0, 0]
    with bind(evaluator_of(max_epochs=40), model) as binding:

        def count(index):
            counts[index] += 1

        for index in (0, 1):
            binding.after_step(lambda index=index: count(index), optimizer=index)
        binding.train(max_steps=5)
        assert counts == expected
        assert model._trainer is None


def test_gradient_accumulation_counts_optimizer_steps():
    with bind(evaluator_of(accumulate_grad_batches=4), net()) as binding:
        binding.train(max_steps=3)
        assert binding.steps == 3


def test_events_tell_steps_epochs_and_losses():
    events = []
    with bind(evaluator_of(), net()) as binding:
        binding.on_event(events.append)
        binding.train(max_epochs=2)
    kinds = [event.kind for event in events]
    assert kinds == ["begin", *["step"] * 8, "epoch", *["step"] * 8, "epoch", "end"]
    assert [event.epoch for event in events if event.kind == "epoch"] == [1, 2]
    assert [event.step for event in events if event.kind == "step"] == [*range(1, 17)]
    assert all(event.loss > 0 for event in events if event.kind == "step")


def test_optimizers_go_on_from_one_training_of_a_binding_to_the_next():
    """As those of any binding do; the Trainer and its callbacks start anew."""
    model = net("dict and config")
    with bind(evaluator_of(), model) as binding:
        optimizer = binding.optimizers[0]
        binding.train(max_steps=4)
        state = optimizer.state[model.fc1.weight]["momentum_buffer"]
        rate = optimizer.param_groups[0]["lr"]
        binding.train(max_steps=4)
        assert binding.optimizers[0] is optimizer
        assert optimizer.state[model.fc1.weight]["momentum_buffer"] is state
        assert optimizer.param_groups[0]["lr"] < rate


def test_a_training_within_a_training_is_refused():
    with bind(evaluator_of(), net()) as binding:
        binding.after_step(lambda: binding.train(max_steps=1))
        with pytest.raises(TrainingError, match="training already"):
            binding.train()


def test_a_binding_that_is_closed_by_its_own_task_makes_no_further_step():
    model, counts = net(), []
    binding = bind(evaluator_of(), model)
    binding.after_step(lambda: counts.append(1) or (binding.close() if len(counts) == 2 else None))
    binding.train()
    assert len(counts) == 2
    assert model._trainer is None


def test_early_stopping_still_stops():
    stopping = EarlyStopping("val_loss", patience=0, min_delta=100.0)
    with bind(evaluator_of(callbacks=[stopping], max_epochs=20), net()) as binding:
        binding.train()
        assert binding.steps == 16
        binding.train()
        assert binding.steps == 32


def test_a_trainer_of_the_users_own_function_is_limited_too():
    from rebind import LightningEvaluator, trace

    evaluator = LightningEvaluator(trace(make_trainer)(1), trace(Data)())
    with bind(evaluator, net()) as binding:
        binding.train(max_steps=20)
        assert binding.steps == 20


def make_trainer(epochs):
    return pl.Trainer(**QUIET, max_epochs=epochs, logger=False, enable_checkpointing=False)
