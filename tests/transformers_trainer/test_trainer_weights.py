"""A training through a binding ends with the bits of the user's own Trainer on the same model."""

from __future__ import annotations

import copy

import pytest
import torch
import trainer_material as material

import rebind
from rebind.testing import assert_pristine

SEED = 5


def ours(evaluator, model, **limits):
    """The weights after a training through a binding."""
    model = copy.deepcopy(model)
    torch.manual_seed(SEED)
    with rebind.bind(evaluator, model) as binding:
        binding.train(**limits)
    return model


def theirs(model, way="default", **given):
    """The weights after the user's own training."""
    torch.manual_seed(SEED)
    return material.by_own_trainer(model, way, **given)[0]


@pytest.mark.parametrize("way", material.WAYS)
@pytest.mark.parametrize("model", [material.net(seed=3), material.net(5, seed=4)], ids=["same", "narrower"])
def test_weights_equal_those_of_the_users_own_trainer(way, model):
    """On another model of the same names, however the optimizers are given; each training is a fresh one."""
    evaluator = material.evaluator_of(way)
    expected = theirs(model, way)
    material.assert_same(ours(evaluator, model), expected)
    material.assert_same(ours(evaluator, model), expected)


@pytest.mark.parametrize("way", material.WAYS)
def test_a_wrapped_model_is_trained_as_by_its_own_trainer(way):
    """Its names are matched without the wrapper's."""
    model = material.Wrapped(material.net(seed=3))
    if way == "groups":
        pytest.skip("the hand-made groups go by the same names")
    material.assert_same(ours(material.evaluator_of(way), model), theirs(model, way))


@pytest.mark.parametrize("kind", [material.OwnLoss, material.OwnOptimizer])
def test_a_trainer_of_the_users_own_keeps_its_ways(kind):
    """Its loss and its optimizer are its own."""
    model = material.net(seed=3)
    evaluator = material.evaluator_of(kind=kind)
    material.assert_same(ours(evaluator, model), theirs(model, kind=kind))


@pytest.mark.parametrize("way", ["optimizer", "optimizer and scheduler"])
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_exactly_the_steps_that_were_asked_for_are_made(way, steps):
    """The Trainer's own limit of six caps nothing."""
    model = material.net(seed=3)
    evaluator = material.evaluator_of(way)
    expected = theirs(model, way, max_steps=steps)
    material.assert_same(ours(evaluator, model, max_steps=steps), expected)


def test_no_step_is_made_where_none_is_asked_for():
    """Zero is zero, and the model is untouched."""
    model = material.net(seed=3)
    material.assert_same(ours(material.evaluator_of(), model, max_steps=0), model)


def test_it_travels_without_its_model_and_trains_the_same():
    """The file of a large model is small, and what comes out of it trains to the same bits."""
    large = material.net(20_000)
    weight = sum(parameter.nbytes for parameter in large.parameters())
    data = rebind.dumps(material.evaluator_of("optimizer", model=large))
    assert weight > 700_000
    assert len(data) < 20_000
    model = material.net(seed=3)
    opened = rebind.loads(data, trusted=True)
    material.assert_same(ours(opened, model), theirs(model, "optimizer"))


def test_a_doubled_loss_is_what_is_trained_on():
    """A patch of the loss equals a Trainer that computes the patched loss; then it is gone."""

    class Doubled(material.Trainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) * 2

    model = material.net(seed=3)
    evaluator = material.evaluator_of("optimizer")
    patched = copy.deepcopy(model)
    torch.manual_seed(SEED)
    with rebind.bind(evaluator, patched) as binding, binding.patch_loss(lambda loss: loss * 2):
        binding.train()
    material.assert_same(patched, theirs(model, "optimizer", kind=Doubled))
    material.assert_same(ours(evaluator, model), theirs(model, "optimizer"))


def test_a_training_that_fails_leaves_the_model_as_it_was():
    """No patch, hook or flag stays, and the arguments are as they were."""
    given = material.arguments()
    before = given.to_dict()
    model = material.net(seed=3)
    trainer = rebind.trace(material.Trainer)(material.net(), given, train_dataset=material.Rows())
    evaluator = rebind.TransformersEvaluator(trainer)

    def fail(*_):
        raise RuntimeError("on purpose")

    with assert_pristine(model), pytest.raises(RuntimeError, match="on purpose"):
        with rebind.bind(evaluator, model) as binding:
            binding.before_step(fail)
            binding.train(max_steps=2)
    assert given.to_dict() == before


def test_the_score_is_the_metric_called_default():
    """As the user's own Trainer computes it."""
    model = material.net(seed=3)
    evaluator = material.evaluator_of(given={"compute_metrics": material.accuracy})
    with rebind.bind(evaluator, model) as binding:
        found = binding.evaluate()
    logits = model.eval()(material.Rows(8, seed=1).x)["logits"]
    expected = (logits.argmax(1) == material.Rows(8, seed=1).labels).float().mean().item()
    assert found.score == pytest.approx(expected)
