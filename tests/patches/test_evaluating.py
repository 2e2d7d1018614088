"""What an evaluating function may return, and what is refused."""

import numpy as np
import pytest
import torch
from patch_material import bound

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
