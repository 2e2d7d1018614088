"""Defects 38 to 50 of the system that rebind replaces: Lightning."""

import copy
import gc
import pickle
import weakref

import lightning.pytorch as unified
import pytest
import pytorch_lightning as pl
import torch
from lightning_material import (
    QUIET,
    Data,
    Net,
    UnifiedData,
    UnifiedNet,
    assert_same,
    by_own_trainer,
    evaluator_of,
    mse,
    net,
    with_scheduler,
)
from pytorch_lightning.callbacks import EarlyStopping

import rebind
from rebind import LightningEvaluator, bind, dumps, loads, trace
from rebind.testing import assert_pristine


def test_38_a_number_of_steps_can_be_asked_for_on_lightning_2():
    with bind(evaluator_of(), net()) as binding:
        binding.train(max_steps=3)
        assert binding.steps == 3


def test_39_a_reverted_step_task_runs_no_more():
    calls = []
    with bind(evaluator_of(), net()) as binding:
        handles = [
            binding.before_step(lambda: calls.append("before")),
            binding.after_step(lambda: calls.append("after")),
        ]
        binding.train(max_steps=1)
        for handle in handles:
            handle.revert()
        binding.train(max_steps=3)
    assert calls == ["before", "after"]


@pytest.mark.parametrize("limits", [{"max_steps": 0}, {"max_epochs": 0}])
def test_40_a_limit_of_0_means_0(limits):
    model = net()
    with bind(evaluator_of(), model) as binding:
        binding.train(**limits)
        assert binding.steps == 0
    assert_same(model, net())


def test_41_limits_are_not_capped_by_the_trainers_own():
    with bind(evaluator_of(max_steps=4), net()) as binding:
        binding.train(max_steps=10)
        assert binding.steps == 10


def test_42_callbacks_are_not_shared_between_fits():
    def epochs(binding):
        told = []
        with binding.on_event(lambda event: told.append(event.epoch) if event.kind == "epoch" else None):
            binding.train()
        return max(told)

    plain, traced = EarlyStopping("never", **STOPPING), trace(EarlyStopping)("never", **STOPPING)
    for callback in (plain, traced):
        evaluator = evaluator_of(callbacks=[callback], max_epochs=9)
        with bind(evaluator, net(kind=NeverBetter)) as binding:
            assert [epochs(binding) for _ in range(3)] == [3, 3, 3]
    assert plain.wait_count == plain.stopped_epoch == 0


STOPPING = {"patience": 2, "strict": False}


class NeverBetter(Net):
    def on_validation_epoch_end(self):
        self.log("never", 1.0)


class Returns(Net):
    def __init__(self, form):
        super().__init__()
        self.returned = form(self)

    def configure_optimizers(self):
        return self.returned


def dict_and_scheduler(model):
    optimizer, scheduler = with_scheduler(model)
    return {"optimizer": optimizer, "lr_scheduler": scheduler}


def dict_without(model):
    return {"optimizer": with_scheduler(model)[0], "lr_scheduler": None}


def lists_with_a_config(model):
    optimizer, scheduler = with_scheduler(model)
    return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def empty(model):
    return []


def documented(model):
    return with_scheduler(model)


@pytest.mark.parametrize("form", [dict_and_scheduler, dict_without, lists_with_a_config, empty, documented])
@pytest.mark.parametrize("recorded", [False, True])
def test_43_every_form_of_configure_optimizers_is_taken(form, recorded):
    if recorded and form is empty:
        with pytest.raises(ValueError, match="returns no optimizer"):
            evaluator_of(model=Returns(form))
        return
    evaluator = evaluator_of(model=Returns(form) if recorded else None)
    with bind(evaluator, Returns(form)) as binding:
        binding.train(max_steps=9)
        assert len(binding.optimizers) == (form is not empty)
        assert len(binding.lr_schedulers) == (form not in (empty, dict_without))


@pytest.mark.parametrize("recorded", [False, True])
def test_44_what_the_user_returned_is_not_changed(recorded):
    model = Returns(lists_with_a_config)
    model.returned = {
        "optimizer": model.returned[0][0],
        "lr_scheduler": model.returned[1][0],
        "monitor": "val_loss",
    }
    inner, before = model.returned["lr_scheduler"], copy.copy(model.returned["lr_scheduler"])
    keys = list(model.returned)
    with bind(evaluator_of(model=model if recorded else None), model) as binding:
        binding.train()
    assert list(model.returned) == keys
    assert model.returned["lr_scheduler"] is inner
    assert inner == before


def test_45_an_evaluator_pickles_before_during_and_after_its_use():
    evaluator, sizes = evaluator_of(), []

    def written():
        pickle.dumps(evaluator)
        sizes.append(len(dumps(evaluator)))
        assert loads(dumps(evaluator), trusted=True) == evaluator

    written()
    with bind(evaluator, net()) as binding:
        written()
        binding.after_step(written)
        binding.train(max_steps=2)
    written()
    assert len(set(sizes)) == 1


def test_46_nothing_is_left_on_a_module_and_copies_optimize_their_own_weights():
    model = net()
    before = set(vars(model))
    with assert_pristine(model), bind(evaluator_of(), model) as binding:
        binding.patch_loss(lambda loss: 2 * loss)
        binding.before_step(lambda: None)
        binding.train(max_steps=2)
        copied = copy.deepcopy(model)
        assert set(vars(model)) == set(vars(copied)) == before
    ours = {id(p) for p in copied.parameters()}
    assert {id(p) for group in copied.configure_optimizers().param_groups for p in group["params"]} == ours


def test_47_a_dummy_input_needs_no_setup_and_has_no_labels():
    with bind(evaluator_of(), net()) as binding:
        assert binding.dummy_input.shape == (4, 2)
        assert binding.model(binding.dummy_input).shape == (4, 1)


class Skipping(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) if batch_idx % 2 else None


def test_48_a_loss_patch_bears_a_training_step_that_returns_none():
    model = net(kind=Skipping)
    with bind(evaluator_of(), model) as binding:
        binding.patch_loss(lambda loss: loss * 1.0)
        torch.manual_seed(1)
        binding.train()
    assert_same(model, by_own_trainer(kind=Skipping))


def test_49_the_unified_lightning_package_is_taken_and_does_not_mix():
    evaluator = evaluator_of(pack=unified, data=UnifiedData)
    model = net(kind=UnifiedNet)
    with bind(evaluator, model) as binding:
        torch.manual_seed(1)
        binding.train()
        assert binding.evaluate().score < 0
    assert_same(model, by_own_trainer())
    with assert_pristine(net()), pytest.raises(rebind.BindError, match="do not mix"):
        bind(evaluator, net())
    with pytest.raises(rebind.BindError, match="do not mix"):
        bind(evaluator_of(), model)
    with pytest.raises(ValueError, match="take both from one package"):
        evaluator_of(pack=unified, data=Data)


def test_50_tasks_before_a_step_see_this_steps_gradients_from_the_first_step_on():
    model, seen = net(), []
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def look():
        seen.append(model.fc1.weight.grad.clone())
        if len(seen) == 1:
            assert all(torch.equal(before[name], p) for name, p in model.named_parameters())

    with bind(evaluator_of(), model) as binding:
        binding.before_step(look)
        binding.train(max_steps=3)
    assert all(gradient.abs().sum() > 0 for gradient in seen)
    assert not torch.equal(seen[0], seen[1])


def test_a_trainer_and_its_data_are_gone_when_a_training_is_over():
    model, found = net(kind=Remembering), []
    with bind(evaluator_of(), model) as binding:
        binding.train(max_steps=1)
        found += REMEMBERED
    REMEMBERED.clear()
    gc.collect()
    assert [reference() for reference in found] == [None] * 2
    assert mse(model(torch.ones(4, 2)), torch.zeros(4, 1)) is not None


REMEMBERED = []


class Remembering(Net):
    def on_train_start(self):
        REMEMBERED.extend([weakref.ref(self.trainer), weakref.ref(self.trainer.datamodule)])


def test_the_users_guides_snippet_runs():
    """With its `return optimizers, lr_schedulers`, and an evaluator made by keyword."""
    trainer = trace(pl.Trainer)(max_epochs=1, **QUIET)
    evaluator = LightningEvaluator(trainer=trainer, data_module=trace(Data)(), dummy_input=torch.rand(8, 2))
    with bind(evaluator, net("optimizer, scheduler")) as binding:
        binding.train(max_steps=2)
        assert binding.dummy_input.shape == (8, 2)
        assert isinstance(binding.evaluate().score, float)
