"""Tasks around the steps of a Trainer; the oracle is the user's own with the same lines in a callback."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
import trainer_material as material
from transformers import TrainerCallback

import rebind
from rebind import TrainingError, bind
from rebind.testing import assert_pristine

# The gradients are clipped hardly ever, always, and never.
CLIPS = [1.0, 0.05, 0.0]
COUNTS = [1, 3]


def halve_gradients(model):
    for parameter in model.parameters():
        parameter.grad.mul_(0.5)


def clamp_weights(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-0.3, 0.3)


class ByHand(TrainerCallback):
    """The user's own lines, at the hook points that transformers has around a step."""

    def __init__(self, before=lambda model: None, after=lambda model: None):
        self.before, self.after = before, after

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.before(model)

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.after(model)


class Watch:
    """Notes gradients, weights and learning rate."""

    def __init__(self):
        self.seen = []

    def __call__(self, model, optimizer=None):
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        self.seen.append((gradients, {name: p.detach().clone() for name, p in model.named_parameters()}))


def assert_seen(watch, other):
    assert len(watch.seen) == len(other.seen) > 0
    for ours, theirs in zip(watch.seen, other.seen, strict=True):
        for kind, wanted in zip(ours, theirs, strict=True):
            assert [name for name in wanted if not torch.equal(kind[name], wanted[name])] == []


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("way", ["default", "optimizer and scheduler"])
def test_tasks_train_as_the_same_lines_in_a_callback(way, count, clip):
    """A change of gradients before and of weights after each step: bit-equal."""
    options = {"max_grad_norm": clip, "gradient_accumulation_steps": count}
    model = material.net(seed=3)
    callback = ByHand(halve_gradients, clamp_weights)
    expected, _ = material.by_own_trainer(model, way, given={"callbacks": [callback]}, **options)
    plain, _ = material.by_own_trainer(model, way, **options)
    with bind(material.evaluator_of(way, **options), model) as binding:
        binding.before_step(lambda: halve_gradients(model))
        binding.after_step(lambda: clamp_weights(model))
        binding.train()
    material.assert_same(model, expected)
    assert not torch.equal(model.fc1.weight, plain.fc1.weight)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("count", COUNTS)
def test_tasks_see_what_a_callback_of_the_users_sees(count, clip):
    """Before: the step's gradients, clipped, and the old weights. After: the new weights."""
    options = {"max_grad_norm": clip, "gradient_accumulation_steps": count}
    model, watches = material.net(seed=3), [Watch() for _ in range(4)]
    callback = ByHand(watches[0], watches[1])
    material.by_own_trainer(model, "optimizer", given={"callbacks": [callback]}, **options)
    with bind(material.evaluator_of("optimizer", **options), model) as binding:
        binding.before_step(lambda: watches[2](model))
        binding.after_step(lambda: watches[3](model))
        binding.train()
    assert_seen(watches[2], watches[0])
    assert_seen(watches[3], watches[1])
    norms = [torch.cat([g.flatten() for g in gradients.values()]).norm() for gradients, _ in watches[2].seen]
    assert all(norm > 0 for norm in norms)
    if clip == 0.05:
        assert all(norm <= 0.0501 for norm in norms)


def test_accumulated_gradients_are_the_mean_over_the_batches():
    """Written out by hand, on a model without dropout: one large batch."""
    model, data = material.net(seed=3, kind=material.Plain), material.Rows(12)
    evaluator = material.evaluator_of(
        "optimizer",
        model=material.net(kind=material.Plain),
        data=data,
        gradient_accumulation_steps=3,
        max_grad_norm=0.0,
        max_steps=1,
    )
    expected = copy.deepcopy(model)
    expected(data.x, data.labels)["loss"].backward()
    watch = Watch()
    with bind(evaluator, model) as binding:
        binding.before_step(lambda: watch(model))
        binding.train()
    ((gradients, weights),) = watch.seen
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
        assert torch.equal(weights[name], parameter)


def test_the_last_task_is_outermost_and_a_callback_of_the_users_goes_before():
    """callback before2 before1 step after1 after2 callback, and then the scheduler."""
    order = []

    class Telling(torch.optim.lr_scheduler.StepLR):
        def step(self, *args):
            order.append("scheduler")
            super().step(*args)

    class Calling(TrainerCallback):
        def on_pre_optimizer_step(self, *args, **kwargs):
            order.append("callback")

        on_optimizer_step = on_pre_optimizer_step

        def __deepcopy__(self, memo):
            return self

    recorded = material.net()
    optimizer = material.sgd(recorded)
    trainer = rebind.trace(material.Trainer)(
        recorded,
        material.arguments(),
        train_dataset=material.Rows(),
        optimizers=(optimizer, rebind.trace(Telling)(optimizer, 1)),
        callbacks=[Calling()],
    )
    with bind(rebind.TransformersEvaluator(trainer), material.net(seed=3)) as binding:
        for number in (1, 2):
            binding.before_step(lambda number=number: order.append(f"before{number}"))
            binding.after_step(lambda number=number: order.append(f"after{number}"))
        order.clear()
        binding.train(max_steps=2)
    one = ["callback", "before2", "before1", "after1", "after2", "callback", "scheduler"]
    assert order == one * 2


def test_tasks_run_once_for_each_step_and_not_for_each_batch():
    counts = []
    with bind(material.evaluator_of(gradient_accumulation_steps=4), material.net(seed=3)) as binding:
        binding.before_step(lambda: counts.append("before"))
        binding.after_step(lambda: counts.append(binding.steps), optimizer=0)
        binding.train(max_steps=3)
    assert counts == ["before", 1, "before", 2, "before", 3]


def test_a_reverted_task_runs_no_more():
    """Neither in this training, nor in a later one."""
    counts = []
    with bind(material.evaluator_of(), material.net(seed=3)) as binding:

        def once():
            counts.append(binding.steps)
            handle.revert()

        handle = binding.before_step(once)
        with binding.after_step(lambda: counts.append("after")):
            binding.train(max_steps=2)
        binding.train(max_steps=2)
    assert counts == [0, "after", "after"]


class StumbleError(RuntimeError):
    pass


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_task_that_raises_ends_the_training_between_steps(when):
    """The error is the user's own; the weights are those of whole steps, and the binding trains again."""
    model, made = material.net(seed=3), 2 if when == "before" else 3
    expected, _ = material.by_own_trainer(model, "optimizer", max_steps=6, given={"callbacks": [Until(made)]})

    def stumble():
        if binding.steps == made and not failed:
            failed.append(1)
            raise StumbleError("on purpose")

    failed = []
    with assert_pristine(model), bind(material.evaluator_of("optimizer"), model) as binding:
        (binding.before_step if when == "before" else binding.after_step)(stumble)
        with pytest.raises(StumbleError, match="on purpose"):
            binding.train()
        assert binding.steps == made
        assert [
            name for name, p in model.named_parameters() if not torch.equal(p, parameters(expected)[name])
        ] == []
        binding.train(max_steps=2)
        assert binding.steps == made + 2


def parameters(model):
    return dict(model.named_parameters())


class Until(TrainerCallback):
    """Ends a training after some steps of those that it was planned for."""

    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.steps


def test_what_a_failed_training_has_accumulated_is_not_in_the_next_one():
    """The next one begins without gradients, as `Trainer.train` does."""
    model = material.net(seed=3, kind=material.Plain)
    evaluator = material.evaluator_of(
        "optimizer", model=material.net(kind=material.Plain), lr_scheduler_type="constant"
    )
    expected, _ = material.by_own_trainer(model, "optimizer", max_steps=3, lr_scheduler_type="constant")
    with bind(evaluator, model) as binding:

        def fail():
            raise StumbleError

        with binding.before_step(fail), pytest.raises(StumbleError):
            binding.train()
        binding.train(max_steps=3)
    material.assert_same(model, expected)


def test_an_evaluation_from_a_task_changes_nothing_of_the_training():
    """It is a Trainer of its own, and modes and generators are put back: the weights are the same bits."""
    options = {"gradient_accumulation_steps": 3, "metric_for_best_model": "loss"}
    model, scores = material.net(seed=3), []
    expected, _ = material.by_own_trainer(model, **options)
    with bind(material.evaluator_of(**options), model) as binding:
        binding.before_step(lambda: scores.append(binding.evaluate().score))
        binding.after_step(lambda: scores.append(binding.evaluate().score))
        binding.on_event(lambda event: scores.append(binding.evaluate().score))
        binding.train()
    material.assert_same(model, expected)
    assert len(set(scores)) > 6


def test_a_copy_from_the_midst_of_a_training_has_weights_of_its_own():
    """No method of a module was replaced that would still run the original."""
    model, copies = material.net(seed=3), []
    with bind(material.evaluator_of(), model) as binding:
        binding.patch_loss(lambda loss: 2 * loss)
        binding.after_step(lambda: copies.append(copy.deepcopy(model)))
        binding.train(max_steps=2)
    first, second = copies
    assert not torch.equal(first.fc1.weight, second.fc1.weight)
    x = material.Rows(4).x
    model.eval(), first.eval()
    with torch.no_grad():
        assert not torch.equal(first(x)["logits"], model(x)["logits"])
        first.load_state_dict(model.state_dict())
        assert torch.equal(first(x)["logits"], model(x)["logits"])


def test_the_trainer_of_a_training_is_gone_when_it_is_over():
    """Once Python has looked for circles: nothing of the binding or of the model holds it."""
    found = []

    class Remembering(material.Trainer):
        def train(self, *args, **kwargs):
            found.append(weakref.ref(self))
            return super().train(*args, **kwargs)

    model = material.net(seed=3)
    with bind(material.evaluator_of(kind=Remembering), model) as binding:
        binding.train(max_steps=2)
        gc.collect()
        assert [reference() for reference in found] == [None]


def test_there_is_one_optimizer_to_choose():
    with bind(material.evaluator_of(), material.net(seed=3)) as binding:
        with pytest.raises(TrainingError, match="none of the 1 optimizers"):
            binding.before_step(lambda: None, optimizer=1)
