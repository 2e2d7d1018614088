"""Limits of a training are kept to the step, whatever limits the recorded arguments have."""

from __future__ import annotations

import copy
import time

import pytest
import torch
import trainer_material as material
from torch.utils.data import IterableDataset
from transformers import EarlyStoppingCallback, TrainerCallback

import rebind
from rebind import TrainingError, bind


def trained(evaluator, model, **limits):
    """The weights after a training through a binding, and the steps it made."""
    model = copy.deepcopy(model)
    with bind(evaluator, model) as binding:
        binding.train(**limits)
        return model, binding.steps


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("steps", [1, 5, 8, 21])
def test_exactly_max_steps_are_made(steps, count):
    """More and fewer than the recorded six, across the ends of epochs, and with accumulated batches."""
    model = material.net(seed=3)
    found, made = trained(
        material.evaluator_of("optimizer", gradient_accumulation_steps=count), model, max_steps=steps
    )
    expected, rates = material.by_own_trainer(
        model, "optimizer", max_steps=steps, gradient_accumulation_steps=count
    )
    assert made == len(rates) == steps
    material.assert_same(found, expected)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("way", ["default", "optimizer and scheduler"])
def test_exactly_max_epochs_are_made(way, count):
    """Also where the recorded arguments have a limit of steps, and fewer epochs."""
    model = material.net(seed=3)
    evaluator = material.evaluator_of(way, gradient_accumulation_steps=count, num_train_epochs=1)
    found, made = trained(evaluator, model, max_epochs=2)
    expected, rates = material.by_own_trainer(
        model, way, gradient_accumulation_steps=count, max_steps=-1, num_train_epochs=2
    )
    assert made == len(rates) == 2 * -(-8 // count)
    material.assert_same(found, expected)


@pytest.mark.parametrize("way", ["default", "optimizer", "optimizer and scheduler"])
@pytest.mark.parametrize("recorded", [{"max_steps": 5}, {"max_steps": -1, "num_train_epochs": 0.5}])
def test_finetuning_has_the_limits_of_the_recorded_arguments(way, recorded):
    """Parts of an epoch too."""
    model = material.net(seed=3)
    found, made = trained(material.evaluator_of(way, **recorded), model)
    expected, rates = material.by_own_trainer(model, way, **recorded)
    assert made == len(rates)
    material.assert_same(found, expected)


@pytest.mark.parametrize("limits", [{"max_steps": 0}, {"max_epochs": 0}, {"timeout": 0}])
@pytest.mark.parametrize("way", ["default", "optimizer and scheduler"])
def test_a_limit_of_zero_makes_no_step(way, limits):
    """No weight, no statistic of a batch norm, no generator, no optimizer and no scheduler is touched."""
    model = material.net(seed=3)
    with bind(material.evaluator_of(way), model) as binding:
        generator = torch.get_rng_state()
        binding.train(**limits)
        assert binding.steps == 0
        assert not binding.optimizers[0].state
        assert binding.lr_schedulers[0].last_epoch == 0
        assert torch.equal(torch.get_rng_state(), generator)
    material.assert_same(model, material.net(seed=3))


@pytest.mark.parametrize(
    ("recorded", "steps"),
    [
        ({"max_steps": 0}, 0),
        ({"max_steps": -1, "num_train_epochs": 0}, 0),
        ({"max_steps": 4, "num_train_epochs": 0}, 4),
    ],
)
def test_recorded_limits_of_zero_make_no_step_either(recorded, steps):
    """Where steps are told, epochs do not count, as for transformers; what is asked for comes first."""
    model, evaluator = material.net(seed=3), material.evaluator_of(**recorded)
    found, made = trained(evaluator, model)
    assert made == steps
    if steps == 0:
        material.assert_same(found, model)
    assert trained(evaluator, model, max_steps=2)[1] == 2
    assert trained(evaluator, model, max_epochs=1)[1] == 8


def test_the_first_of_two_limits_ends_a_training():
    evaluator, model = material.evaluator_of(), material.net(seed=3)
    assert trained(evaluator, model, max_steps=100, max_epochs=2)[1] == 16
    assert trained(evaluator, model, max_steps=3, max_epochs=2)[1] == 3


def test_a_timeout_ends_a_training_after_the_step_under_way():
    with bind(material.evaluator_of(), material.net(seed=3)) as binding:
        binding.after_step(lambda: time.sleep(0.02))
        began = time.monotonic()
        binding.train(max_steps=100_000, timeout=0.2)
        assert 1 <= binding.steps < 20
        assert time.monotonic() - began < 60


def test_a_training_that_is_stopped_is_one_of_as_many_steps():
    """The own trainer stops by a callback of the user's; the binding trains again."""

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    model = material.net(seed=3)
    expected, _ = material.by_own_trainer(model, given={"callbacks": [Stop()]}, gradient_accumulation_steps=2)
    with bind(material.evaluator_of(gradient_accumulation_steps=2), model) as binding:
        handle = binding.after_step(lambda: binding.stop() if binding.steps == 3 else None)
        binding.train()
        assert binding.steps == 3
        material.assert_same(model, expected)
        handle.revert()
        binding.train(max_steps=2)
        assert binding.steps == 5


def test_a_stop_of_the_users_own_callback_still_ends_a_training():
    """It is copied for each training, so it stops each anew."""
    options = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "never"}
    given = {
        "callbacks": [EarlyStoppingCallback(early_stopping_patience=1)],
        "compute_metrics": lambda _: {"never": 1.0},
    }
    options |= {"load_best_model_at_end": True, "save_strategy": "best"}
    evaluator = material.evaluator_of(given=given, **options)
    with bind(evaluator, material.net(seed=3)) as binding:
        for number in (1, 2, 3):
            binding.train(max_steps=50)
            assert binding.steps == number * 4


def test_a_training_without_limits_that_is_in_a_training_is_refused():
    with bind(material.evaluator_of(), material.net(seed=3)) as binding:
        binding.after_step(lambda: binding.train(max_steps=1))
        with pytest.raises(TrainingError, match="training already"):
            binding.train()


def test_a_binding_that_is_closed_by_its_own_task_makes_no_further_step():
    model, counts = material.net(seed=3), []
    binding = bind(material.evaluator_of(), model)
    binding.after_step(lambda: counts.append(1) or (binding.close() if len(counts) == 2 else None))
    binding.train()
    assert len(counts) == 2


class Stream(IterableDataset):
    """Rows without a length."""

    def __iter__(self):
        rows = material.Rows()
        return (rows[index] for index in range(len(rows)))


def test_data_without_a_length_train_by_steps_and_refuse_epochs():
    """A Trainer counts no epochs there; with a limit of steps as well, the data's own ends count."""
    model, evaluator = material.net(seed=3), material.evaluator_of("optimizer", data=Stream())
    found, made = trained(evaluator, model, max_steps=11)
    assert made == 11
    material.assert_same(found, material.by_own_trainer(model, "optimizer", data=Stream(), max_steps=11)[0])
    with pytest.raises(TrainingError, match=r"Stream has no length.*max_steps="):
        trained(evaluator, model, max_epochs=2)
    assert trained(evaluator, model, max_epochs=2, max_steps=50)[1] == 16


@pytest.mark.parametrize("count", [1, 3])
def test_events_tell_steps_epochs_and_the_losses_that_were_trained_on(count):
    """A loss is that of the last batch before the step."""
    events, losses = [], []

    class Noting(material.Trainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.item())
            return loss

    model = material.net(seed=3)
    limits = {"max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": count}
    material.by_own_trainer(model, kind=Noting, **limits)
    with bind(material.evaluator_of(gradient_accumulation_steps=count), model) as binding:
        binding.on_event(events.append)
        binding.train(max_epochs=2)
    steps = -(-8 // count)
    assert [event.kind for event in events] == [
        "begin", *["step"] * steps, "epoch", *["step"] * steps, "epoch", "end"
    ]  # fmt: skip
    assert [event.epoch for event in events if event.kind == "epoch"] == [1, 2]
    told = [event for event in events if event.kind == "step"]
    assert [event.step for event in told] == [*range(1, 2 * steps + 1)]
    ends = [min(8, count * (step + 1)) - 1 + 8 * epoch for epoch in (0, 1) for step in range(steps)]
    assert [event.loss for event in told] == [losses[end] for end in ends]


def test_the_recorded_optimizer_goes_on_and_the_trainers_own_schedule_begins_anew():
    """As with one optimizer that is given to two Trainers, one after the other."""
    model = material.net(seed=3)
    expected = copy.deepcopy(model)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        own = material.Trainer(
            expected,
            material.arguments(),
            train_dataset=material.Rows(),
            optimizers=(optimizer, None),
        )
        own.train()
    with bind(material.evaluator_of("optimizer"), model) as binding:
        ours = binding.optimizers[0]
        binding.train()
        first = binding.lr_schedulers[0]
        binding.train()
        assert binding.optimizers[0] is ours
        assert binding.lr_schedulers[0] is not first
    material.assert_same(model, expected)


def test_a_training_goes_on_from_its_state_to_the_bit(tmp_path):
    """In another binding, from a file; a Trainer seeds each training."""
    evaluator = material.evaluator_of("optimizer and scheduler")
    model = material.net(seed=3)
    with bind(evaluator, model) as binding:
        binding.train(max_steps=3)
        torch.save(binding.state_dict(), tmp_path / "state.pt")
        binding.train(max_steps=4)
    other = material.net(seed=8)
    with bind(evaluator, other) as binding:
        binding.load_state_dict(torch.load(tmp_path / "state.pt"))
        assert binding.steps == 3
        binding.train(max_steps=4)
        assert binding.steps == 7
    material.assert_same(model, other)


def test_limits_that_are_no_numbers_are_told():
    with rebind.bind(material.evaluator_of(), material.net(seed=3)) as binding:
        for limits in ({"max_steps": -1}, {"max_epochs": 1.5}, {"timeout": "long"}):
            with pytest.raises(TrainingError, match="None or a number from 0 up"):
                binding.train(**limits)
