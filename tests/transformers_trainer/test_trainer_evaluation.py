"""A score by `Trainer.evaluate`, and an example input out of the data."""

from __future__ import annotations

import copy

import pytest
import torch
import trainer_material as material

import rebind
from rebind import BindError, EvaluationError, bind, trace
from rebind.testing import assert_pristine

TIMES = ("runtime", "second", "preparation_time")


def two_metrics(prediction):
    wrong = 1 - material.accuracy(prediction)["default"]
    return {"accuracy": 1 - wrong, "mistakes": wrong}


def not_a_number(prediction):
    return {"default": float("nan")}


def evaluated(model, given=None, **options):
    with assert_pristine(model), bind(material.evaluator_of(given=given, **options), model) as binding:
        return binding.evaluate()


def by_own_trainer(model, compute_metrics=None, held_out=None):
    """What the user's own Trainer computes, on a copy of a model."""
    trainer = material.Trainer(
        copy.deepcopy(model),
        material.arguments(),
        eval_dataset=material.Rows(8, seed=1) if held_out is None else held_out,
        compute_metrics=compute_metrics,
    )
    return untimed(trainer.evaluate())


def untimed(metrics):
    return {name: value for name, value in metrics.items() if not any(part in name for part in TIMES)}


def test_the_score_is_the_metric_default_and_all_metrics_are_beside_it():
    model = material.net(seed=3)
    expected = by_own_trainer(model, material.accuracy)
    score, info = evaluated(model, {"compute_metrics": material.accuracy})
    assert score == expected["eval_default"]
    assert untimed(info) == expected


@pytest.mark.parametrize("name", ["accuracy", "eval_accuracy"])
def test_another_metric_is_named_in_the_arguments(name):
    """As transformers names it, with its prefix or without."""
    model = material.net(seed=3)
    found = evaluated(model, {"compute_metrics": two_metrics}, metric_for_best_model=name)
    assert found.score == by_own_trainer(model, two_metrics)["eval_accuracy"]


def test_of_both_the_metric_default_is_the_score():
    model = material.net(seed=3)
    found = evaluated(model, {"compute_metrics": material.accuracy}, metric_for_best_model="loss")
    assert found.score == by_own_trainer(model, material.accuracy)["eval_default"]


def test_a_metric_of_which_less_is_better_gives_its_negative():
    """A loss by its name, anything else where the arguments say so; what is logged keeps its sign."""
    model = material.net(seed=3)
    found = evaluated(model, metric_for_best_model="loss")
    loss = by_own_trainer(model)["eval_loss"]
    assert found.score == -loss
    assert found.info["eval_loss"] == loss
    options = {"metric_for_best_model": "mistakes", "greater_is_better": False}
    found = evaluated(model, {"compute_metrics": two_metrics}, **options)
    assert found.score == -by_own_trainer(model, two_metrics)["eval_mistakes"]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({}, {}, r"no 'default', only .*eval_loss.*compute_metrics=.*metric_for_best_model="),
        ({"compute_metrics": two_metrics}, {}, r"no 'default', only .*eval_accuracy"),
        ({}, {"metric_for_best_model": "f1"}, r"neither 'default' nor 'f1', only .*eval_loss"),
        (
            {"compute_metrics": two_metrics},
            {"metric_for_best_model": "f1"},
            r"neither 'default' nor 'f1', only .*eval_accuracy.*eval_mistakes",
        ),
        ({"compute_metrics": not_a_number}, {}, "NaN"),
    ],
)
def test_a_score_that_is_missing_is_told_with_what_there_is(given, options, message):
    """Whether or not metrics are computed; the model is as it was."""
    with pytest.raises(EvaluationError, match=message):
        evaluated(material.net(seed=3), given, **options)


def test_several_sets_of_data_are_evaluated_under_their_names():
    model, held_out = material.net(seed=3), {"a": material.Rows(8, seed=1), "b": material.Rows(8, seed=2)}
    expected = by_own_trainer(model, two_metrics, held_out)
    found = evaluated(
        model, {"compute_metrics": two_metrics}, held_out=held_out, metric_for_best_model="b_accuracy"
    )
    assert found.score == expected["eval_b_accuracy"]
    assert untimed(found.info) == expected


def test_a_trainer_without_evaluation_data_says_so():
    evaluator = rebind.TransformersEvaluator(trace(material.Trainer)(material.net(), material.arguments()))
    with bind(evaluator, material.net(seed=3)) as binding:
        with pytest.raises(EvaluationError, match="no evaluation data: give it eval_dataset="):
            binding.evaluate()


def mixed_modes(model):
    model.norm.eval()
    return model


@pytest.mark.parametrize("prepare", [torch.nn.Module.train, torch.nn.Module.eval, mixed_modes])
@pytest.mark.parametrize("metrics", [material.accuracy, two_metrics])
def test_an_evaluation_leaves_modes_weights_and_generators_as_they_are(prepare, metrics):
    """Each module's own mode, also where the score is missing: the oracle is what was there."""
    model = prepare(material.net(seed=3))
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    with bind(material.evaluator_of(given={"compute_metrics": metrics}), model) as binding:
        generator = torch.get_rng_state()
        if metrics is two_metrics:
            with pytest.raises(EvaluationError):
                binding.evaluate()
        else:
            binding.evaluate()
        assert [module.training for module in model.modules()] == modes
        assert torch.equal(torch.get_rng_state(), generator)
    assert [name for name, value in model.state_dict().items() if not torch.equal(state[name], value)] == []


HALVES = {"bf16_full_eval": torch.bfloat16, "fp16_full_eval": torch.float16}


def classifier():
    """Takes words, which stay whole numbers in any precision; with a buffer that does not."""
    model = material.bert()
    model.config.problem_type = "single_label_classification"  # its own forward notes it at the first batch
    model.register_buffer("third", torch.full((2,), 1 / 3))
    return model


def halved(option):
    options = {option: True, "metric_for_best_model": "loss", "max_grad_norm": 0.5}
    data = {"data": material.Tokens(), "held_out": material.Tokens(4)}
    return material.evaluator_of("optimizer", model=classifier(), **data, **options)


@pytest.mark.parametrize("option", HALVES)
def test_an_evaluation_in_half_precision_leaves_the_weights_whole(option):
    """The score is that of the user's own Trainer, which rounds the model's weights for good."""
    model = classifier()
    state, own = copy.deepcopy(model.state_dict()), copy.deepcopy(model)
    options = material.arguments(**{option: True})
    loss = material.Trainer(own, options, eval_dataset=material.Tokens(4)).evaluate()["eval_loss"]
    assert {parameter.dtype for parameter in own.parameters()} == {HALVES[option]}
    with assert_pristine(model), bind(halved(option), model) as binding:
        assert binding.evaluate().score == -loss
    assert [name for name, value in model.state_dict().items() if not torch.equal(state[name], value)] == []


@pytest.mark.parametrize("option", HALVES)
def test_an_evaluation_in_half_precision_in_the_midst_changes_nothing_of_the_training(option):
    """Neither weights nor the gradients that are ready."""
    model = classifier()
    expected, _ = material.by_own_trainer(model, "optimizer", data=material.Tokens(), max_grad_norm=0.5)
    with bind(halved(option), model) as binding:
        binding.before_step(binding.evaluate)
        binding.after_step(binding.evaluate)
        binding.train()
    material.assert_same(model, expected)


def sampled(evaluator, model):
    with bind(evaluator, model) as binding:
        generator = torch.get_rng_state()
        found = binding.dummy_input
        assert torch.equal(torch.get_rng_state(), generator)
        return found


def test_an_example_input_is_a_batch_without_labels():
    """The first that the user's own Trainer would train on; the model takes it."""
    model = material.net(seed=3)
    found = sampled(material.evaluator_of(), model)
    own = material.Trainer(copy.deepcopy(model), material.arguments(), train_dataset=material.Rows())
    batch = next(iter(own.get_train_dataloader()))
    assert list(found) == ["x"]
    assert torch.equal(found["x"], batch["x"])
    assert model(**found)["logits"].shape == (4, 2)


def test_a_given_example_input_comes_first_and_without_data_there_is_none():
    trainer = trace(material.Trainer)(material.net(), material.arguments())
    given = torch.ones(1, 6)
    assert torch.equal(sampled(rebind.TransformersEvaluator(trainer, given), material.net(seed=3)), given)
    with pytest.raises(BindError, match="no data to take an example from; pass dummy_input="):
        sampled(rebind.TransformersEvaluator(trainer), material.net(seed=3))
