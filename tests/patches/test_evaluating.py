"""What an evaluating function may return, and what is refused."""

import numpy as np
import pytest
import torch
from patch_material import BATCHES, TARGETS, bound, by_hand, mse, net, train, train_on

from rebind import Evaluation, EvaluationError


@pytest.mark.parametrize(
    ("value", "score", "info"),
    [
        (0.5, 0.5, {}),
        (3, 3.0, {}),
        (np.float32(0.5), 0.5, {}),
        (torch.tensor(0.5), 0.5, {}),
        (torch.tensor(0.5, requires_grad=True), 0.5, {}),
        ((0.5, {"loss": 2.0}), 0.5, {"loss": 2.0}),
        ((torch.tensor(0.5), {}), 0.5, {}),
        ({"default": 0.5, "loss": 2.0}, 0.5, {"default": 0.5, "loss": 2.0}),
        (Evaluation(None, {"note": 1}), None, {"note": 1}),
        (float("inf"), float("inf"), {}),
    ],
)
def test_every_form_of_a_score_unpacks_as_score_and_info(value, score, info):
    with bound(evaluating_func=lambda model: value) as binding:
        result = binding.evaluate()
        assert (result.score, result.info) == (score, info)
        assert list(result) == [score, info]
        assert result.score is None or type(result.score) is float


@pytest.mark.parametrize(
    "value",
    [None, "0.5", [0.5], (0.5,), (0.5, 2.0), (0.5, {}, 1), {"accuracy": 0.5}, {"default": "high"}]
    + [torch.ones(2), float("nan"), torch.tensor(float("nan")), 1j, True, object()],
)
def test_anything_else_raises_and_tells_what_was_returned(value):
    with (
        bound(evaluating_func=lambda model: value) as binding,
        pytest.raises(EvaluationError, match="returned"),
    ):
        binding.evaluate()


def test_without_an_evaluating_function_there_is_an_error():
    with bound() as binding, pytest.raises(EvaluationError, match="no evaluating_func"):
        binding.evaluate()


def test_the_function_gets_the_bound_model():
    got = []
    with bound(evaluating_func=lambda model: (got.append(model), 1.0)[1]) as binding:
        binding.evaluate()
        assert got == [binding.model]


@pytest.mark.parametrize("where", ["listener", "task"])
def test_an_evaluation_in_the_midst_of_a_training_does_not_change_it(where):
    """The evaluating function leaves the model in eval mode; dropout and batch norm train on as by hand."""
    seen = []

    def score(model):
        model.eval()
        seen.append(model.norm.num_batches_tracked.item())
        return 1.0

    def frozen_norm(model, optimizers, criterion, max_steps=None):
        model.train()
        model.norm.eval()
        for x, y in zip(BATCHES[:max_steps], TARGETS, strict=False):
            optimizers.zero_grad()
            criterion(model(x), y).backward()
            optimizers.step()

    for loop in (train, frozen_norm):
        with bound(net(), loop, evaluating_func=score) as binding:
            if where == "task":
                binding.after_step(binding.evaluate)
            else:
                binding.on_event(lambda event, b=binding: event.kind == "step" and b.evaluate())
            binding.train(max_steps=6)
            ours = binding.model
        plain = by_hand(lambda model, optimizer, _, loop=loop: loop(model, optimizer, mse, max_steps=6))
        for name, value in plain.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name
    assert seen == [1, 2, 3, 4, 5, 6] + [0] * 6


def test_a_training_that_is_stopped_after_an_evaluation_ends_there():
    with bound(training_func=train_on, evaluating_func=lambda model: (model.eval(), 1.0)[1]) as binding:
        binding.on_event(lambda event: (binding.evaluate(), binding.stop()) if event.step == 3 else None)
        binding.train()
        assert binding.steps == 3
