"""Defects 51 to 53 of the system that rebind replaces: transformers."""

from __future__ import annotations

import pickle

import pytest
import torch
import trainer_material as material

from rebind import TransformersEvaluator, bind, dumps, loads, trace
from rebind.testing import assert_pristine


def methods(kind):
    return {name: value for base in kind.__mro__ for name, value in vars(base).items()}


def fail():
    raise RuntimeError("on purpose")


def test_51_loss_patches_step_tasks_and_the_default_optimizer_work_on_transformers_5():
    """And equal a Trainer of the user's own with the same lines."""

    class Patched(material.Trainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) * 3

    model, order = material.net(seed=3), []
    expected, _ = material.by_own_trainer(model, "default", kind=Patched)
    with bind(material.evaluator_of("default"), model) as binding:
        binding.patch_loss(lambda loss, batch: loss * 3)
        binding.before_step(lambda: order.append("before"))
        binding.after_step(lambda: order.append("after"))
        binding.train()
    material.assert_same(model, expected)
    assert order == ["before", "after"] * 6


@pytest.mark.parametrize("place", ["loss", "before", "after", "model"])
def test_51_no_class_stays_patched_after_a_failure(place):
    """Neither the Trainer's, nor the optimizer's, nor the model's; the next training is the user's own."""
    model, evaluator = material.net(seed=3), material.evaluator_of("optimizer")
    kinds = [material.Trainer, torch.optim.SGD, material.Net]
    before = [methods(kind) for kind in kinds]
    with assert_pristine(model), bind(evaluator, model) as binding:
        hook = binding.forward_hook("fc2", lambda *_: fail()) if place == "model" else None
        if place == "loss":
            binding.patch_loss(lambda _: fail())
        elif hook is None:
            (binding.before_step if place == "before" else binding.after_step)(fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            binding.train()
    assert [methods(kind) for kind in kinds] == before
    model = material.net(seed=3)
    expected, _ = material.by_own_trainer(model, "optimizer")
    with bind(evaluator, model) as binding:
        binding.train()
    material.assert_same(model, expected)


@pytest.mark.parametrize("limits", [{"max_steps": 2}, {"max_epochs": 4}])
def test_52_arguments_that_are_shared_are_as_they_were_after_an_exception(limits):
    """Those that another Trainer of the user's has, too."""
    shared = material.arguments()
    before = shared.to_dict()
    own = material.Trainer(material.net(seed=3), shared, train_dataset=material.Rows())
    trainer = trace(material.Trainer)(material.net(), shared, train_dataset=material.Rows())
    with bind(TransformersEvaluator(trainer), material.net(seed=3)) as binding:
        binding.after_step(fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            binding.train(**limits)
    assert shared.to_dict() == before
    assert own.args is shared
    own.train()
    assert own.state.global_step == 6


def test_53_no_bytes_carry_the_model():
    """Those of a model a hundred times larger are no more, before, during and after a training."""
    small, large = material.net(8), material.net(100_000)
    evaluators = [material.evaluator_of("optimizer", model=model) for model in (small, large)]
    sizes = set()

    def write():
        for evaluator in evaluators:
            sizes.add(len(dumps(evaluator)))
            assert len(pickle.dumps(evaluator)) < 50_000
            assert loads(dumps(evaluator), trusted=True) == evaluator

    write()
    with bind(evaluators[1], material.net(seed=3)) as binding:
        binding.after_step(write)
        binding.train(max_steps=2)
    write()
    assert sum(p.nbytes for p in large.parameters()) > 4_000_000
    assert max(sizes) < 20_000
    assert max(sizes) - min(sizes) < 200
