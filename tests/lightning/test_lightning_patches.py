"""Patches of the loss and tasks around steps, at Lightning's own hook points."""

import copy
import pickle

import pytest
import pytorch_lightning as pl
import torch
from lightning_material import Net, assert_same, by_own_trainer, evaluator_of, mse, net

from rebind import TrainingError, bind
from rebind.testing import assert_pristine


def penalty(model):
    return 0.1 * model.fc1.weight.abs().sum()


class Penalised(Net):
    """The user writes the penalty into their own module."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + penalty(self)

    def manual_backward(self, loss, *args, **kwargs):
        super().manual_backward(loss + penalty(self), *args, **kwargs)

    def manual_step(self, batch):
        super().manual_step(batch)
        return torch.zeros(())


class Returning(Net):
    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), "more": batch_idx}


class Skipping(Net):
    """Nothing is trained on every second batch."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) if batch_idx % 2 else None


def trained(model, change, **options):
    with bind(evaluator_of(**options), model) as binding:
        change(binding)
        torch.manual_seed(1)
        binding.train()
    return model


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("optimizer", {}),
        ("optimizer", {"accumulate_grad_batches": 3}),
        ("manual one", {}),
        ("manual several", {}),
        ("manual dicts", {}),
    ],
)
def test_a_loss_patch_is_what_the_user_would_write_into_the_module(form, options):
    """Under automatic and manual optimization, with and without gradient accumulation."""
    model = net(form)
    trained(model, lambda b: b.patch_loss(lambda loss: loss + penalty(model)), **options)
    assert_same(model, by_own_trainer(form, kind=Penalised, **options))


def test_a_patch_gets_the_batch_and_a_criterion_patch_the_training_step():
    seen = []

    def patch(loss, batch):
        seen.append(batch[0].shape)
        return loss

    def wrap(step):
        return lambda batch, batch_idx: 0.5 * step(batch, batch_idx)

    def change(binding):
        binding.patch_loss(patch)
        binding.patch_criterion(wrap)

    class Halved(Net):
        def training_step(self, batch, batch_idx):
            return 0.5 * super().training_step(batch, batch_idx)

    assert_same(trained(net(), change), by_own_trainer(kind=Halved))
    assert seen == [(4, 2)] * 16


def test_under_manual_optimization_a_patch_gets_the_loss_of_each_backward_and_the_batch():
    seen = []

    def patch(loss, batch):
        seen.append((float(loss.detach()) > 0, batch[0].shape))
        return loss

    trained(net("manual several"), lambda binding: binding.patch_loss(patch))
    assert seen == [(True, (4, 2))] * 32


def test_a_mapping_keeps_its_other_entries_and_none_is_left_alone():
    calls = []

    def patch(loss):
        calls.append(loss)
        return loss + 0

    outputs = []

    class Seeing(pl.Callback):
        def on_train_batch_end(self, trainer, module, output, batch, batch_idx):
            OUTPUTS.append(output)

    OUTPUTS.clear()
    trained(net(kind=Returning), lambda b: b.patch_loss(patch), callbacks=[Seeing()])
    assert [output["more"] for output in OUTPUTS] == [*range(8)] * 2
    assert len(calls) == 16
    calls.clear()
    model = trained(net(kind=Skipping), lambda b: b.patch_loss(patch))
    assert len(calls) == 8
    assert_same(model, by_own_trainer(kind=Skipping))
    assert outputs == []


OUTPUTS = []


class Clipping(Net):
    """Remembers the gradients that Lightning shows it before a step, and the weights after."""

    def __init__(self, form="optimizer"):
        super().__init__(form)
        self.seen = []

    def on_before_optimizer_step(self, optimizer):
        self.seen.append(self.fc1.weight.grad.clone())


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("optimizer", {}),
        ("optimizer", {"accumulate_grad_batches": 3}),
        ("optimizer", {"gradient_clip_val": 0.01}),
        ("optimizer", {"accumulate_grad_batches": 2, "gradient_clip_val": 0.01}),
        ("optimizer", {"precision": "bf16-mixed"}),
        ("manual one", {}),
    ],
)
def test_before_a_step_the_gradients_are_those_of_on_before_optimizer_step(form, options):
    """Complete, of this step and not yet clipped; the weights are those before the step."""
    model = net(form, kind=Clipping)
    seen, weights, after = [], [], []
    with bind(evaluator_of(**options), model) as binding:
        binding.before_step(lambda: seen.append(model.fc1.weight.grad.clone()))
        binding.before_step(lambda: weights.append(model.fc1.weight.detach().clone()))
        binding.after_step(lambda: after.append(model.fc1.weight.detach().clone()))
        binding.train()
    assert len(seen) == len(model.seen) == len(after) > 1
    assert all(map(torch.equal, seen, model.seen))
    assert all(map(torch.equal, weights[1:], after))
    assert not any(map(torch.equal, weights, after))


class OwnClipping(Net):
    """Clips in its own way."""

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clip_gradients(optimizer, 0.01, "norm")


class ClippingLater(pl.Callback):
    """Has the trainer clip from now on."""

    def on_train_batch_start(self, trainer, *_):
        trainer.gradient_clip_val = 0.01


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Net, {"gradient_clip_val": 0.01}),
        (Net, {"callbacks": [ClippingLater()]}),
        (OwnClipping, {}),
    ],
)
def test_before_a_step_gradients_are_not_clipped_whoever_clips_them(kind, options):
    model, norms = net(kind=kind), {"before": [], "after": []}

    def note(when):
        gradients = [parameter.grad for parameter in model.parameters()]
        norms[when].append(float(torch.nn.utils.get_total_norm(gradients)))

    with bind(evaluator_of(**options), model) as binding:
        binding.before_step(lambda: note("before"))
        binding.after_step(lambda: note("after"))
        binding.train(max_steps=3)
    assert len(norms["before"]) == 3
    assert all(norm > 0.02 for norm in norms["before"])
    assert all(norm < 0.0101 for norm in norms["after"])


def test_tasks_nest_run_for_one_optimizer_and_end_when_they_are_reverted():
    model, calls = net("manual several"), []
    with bind(evaluator_of(), model) as binding:
        first = binding.before_step(lambda: calls.append("before 1"), optimizer=0)
        binding.before_step(lambda: calls.append("before 2"), optimizer=0)
        binding.after_step(lambda: calls.append("after 1"), optimizer=1)
        binding.after_step(lambda: calls.append("after 2"), optimizer=1)
        binding.train(max_steps=1)
        assert calls == ["before 2", "before 1", "after 1", "after 2"]
        first.revert()
        calls.clear()
        binding.train(max_steps=2)
        assert calls == ["before 2", "after 1", "after 2"] * 2


class RawSteps(Net):
    """Steps optimizers behind Lightning's back."""

    def manual_step(self, batch):
        x, y = batch
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        self.manual_backward(mse(self(x), y))
        optimizer.step()


def test_tasks_and_budgets_also_see_steps_that_lightning_does_not():
    model, seen = net("manual one", kind=RawSteps), []
    with bind(evaluator_of(), model) as binding:
        binding.before_step(lambda: seen.append(model.fc1.weight.grad.abs().sum() > 0))
        binding.train(max_steps=5)
        assert binding.steps == 5
    assert seen == [True] * 5
    assert model.norm.num_batches_tracked == 5  # and no batch is begun that could make no step


def test_lbfgs_runs_each_task_once_for_a_step():
    class Quasi(Net):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=4)

    model, calls = net(kind=Quasi), []
    with bind(evaluator_of(), model) as binding:
        binding.before_step(lambda: calls.append("before"))
        binding.after_step(lambda: calls.append("after"))
        binding.train(max_steps=3)
    assert calls == ["before", "after"] * 3


def test_a_patch_that_returns_no_tensor_is_an_error_and_the_model_is_left_as_it_was():
    model = net()
    with assert_pristine(model), bind(evaluator_of(), model) as binding:
        binding.patch_loss(lambda loss: None)
        with pytest.raises(TrainingError, match="must return the new loss"):
            binding.train()
        assert model._trainer is None


def test_copies_and_pickles_of_a_bound_module_have_weights_of_their_own():
    """Also those that are made in the middle of a training."""
    model, copies = net(), []
    with bind(evaluator_of(), model) as binding:
        binding.patch_loss(lambda loss: loss + penalty(model))
        binding.forward_hook("fc1", lambda *_: None)

        def keep():
            copies.append(copy.deepcopy(model))
            copies.append(pickle.loads(pickle.dumps(model)))

        binding.after_step(keep)
        binding.train(max_steps=2)
    for copied in copies:
        assert copied._trainer is None
        before = copied.fc1.weight.detach().clone()
        optimizer = copied.configure_optimizers()
        mse(copied(torch.ones(4, 2)), torch.zeros(4, 1)).backward()
        optimizer.step()
        assert not torch.equal(before, copied.fc1.weight)
    assert not torch.equal(copies[0].fc1.weight, copies[2].fc1.weight)


def test_the_training_step_may_be_called_while_its_trainer_trains_and_at_no_other_time():
    """As the binding's criterion, with patches or without."""
    model, batch, losses = net(), (torch.ones(4, 2), torch.zeros(4, 1)), []

    def call():
        for step in (binding.criterion, model.training_step):
            torch.manual_seed(3)
            losses.append(step(batch, 0).item())

    with bind(evaluator_of(), model) as binding:
        binding.after_step(call)
        binding.train(max_steps=1)
        handle = binding.patch_loss(lambda loss: 2 * loss)
        binding.train(max_steps=1)
        for _ in range(2):
            with pytest.raises(TrainingError, match="only while its trainer trains"):
                binding.criterion(batch, 0)
            handle.revert()
    assert losses == [losses[0], losses[0], 2 * losses[3], losses[3]]


def test_hooks_and_collections_work_as_in_a_loop_of_ones_own():
    model = net()
    with assert_pristine(model), bind(evaluator_of(), model) as binding:
        outputs = binding.collect("fc1", keep=3)
        gradients = []
        binding.gradient_hook("fc2.weight", lambda gradient: gradients.append(gradient.clone()))
        binding.train(max_steps=4)
        assert [tuple(value.shape) for value in outputs.values()] == [(4, 4)] * 3
        assert len(gradients) == 4


def test_parameters_join_the_optimizers_of_a_module():
    model = net()
    scale = torch.nn.Parameter(torch.ones(1))
    with bind(evaluator_of(), model) as binding:
        binding.add_parameters({"fc1": [scale]})
        binding.patch_loss(lambda loss: loss * scale.sum())
        binding.train(max_steps=3)
        assert not torch.equal(scale, torch.ones(1))
    assert not any(scale is p for group in binding.optimizers[0].param_groups for p in group["params"])
