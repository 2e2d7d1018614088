"""Losses over accumulated batches, patched and not: what the user's own Trainer or loop computes."""

from __future__ import annotations

import copy

import pytest
import torch
import trainer_material as material
from torch import nn

import rebind
from rebind.testing import assert_pristine

SEED = 5
# Ten batches of four rows: three divides them with one left over, four with two.
COUNTS = [1, 3, *(pytest.param(count, marks=pytest.mark.long) for count in (2, 4, 16))]


class Items(nn.Module):
    """A model that divides its loss by the items of the whole step, as those of transformers do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 2)

    def forward(self, x, labels=None, num_items_in_batch=None, **kwargs):
        logits = self.fc(x)
        total = nn.functional.cross_entropy(logits, labels, reduction="sum")
        items = labels.ne(-100).sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / items, "logits": logits}


class Uneven(material.Rows):
    """Some labels are not counted, so that batches have unlike numbers of items; one has none at all."""

    def __init__(self):
        super().__init__(40)
        self.labels[::3] = -100
        self.labels[8:12] = -100


def penalty(model):
    return 0.25 * sum(parameter.abs().sum() for parameter in model.parameters())


class Penalized(material.Trainer):
    """The user's own way to add a term: the Trainer divides the sum by the number of batches."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        return super().compute_loss(model, inputs, *args, **kwargs) + penalty(model)


class PenalizedByItems(material.Trainer):
    """The term is weighed by the share of the batch's items in the step."""

    def compute_loss(self, model, inputs, *args, num_items_in_batch=None, **kwargs):
        share = inputs["labels"].ne(-100).sum() / num_items_in_batch
        loss = super().compute_loss(model, inputs, *args, num_items_in_batch=num_items_in_batch, **kwargs)
        return loss + penalty(model) * share


# The model, what the Trainer is given, and the user's own Trainer with the penalty.
LOSSES = {
    "the model's mean": (material.Net, {}, {}, Penalized),
    "label smoothing": (material.Configured, {}, {"label_smoothing_factor": 0.1}, Penalized),
    "the model's sum by the items": (Items, {}, {}, PenalizedByItems),
    "a loss function's sum by the items": (
        material.Net,
        {"compute_loss_func": material.summed_loss},
        {},
        PenalizedByItems,
    ),
    "items of this process alone": (Items, {}, {"average_tokens_across_devices": False}, PenalizedByItems),
}


def trained(evaluator, model, patch=None, **limits):
    model = copy.deepcopy(model)
    torch.manual_seed(SEED)
    with rebind.bind(evaluator, model) as binding:
        if patch is not None:
            binding.patch_loss(lambda loss: patch(loss, model))
        binding.train(**limits)
        steps = binding.steps
    return model, steps


def by_user(model, **given):
    torch.manual_seed(SEED)
    return material.by_own_trainer(model, "optimizer", **given)[0]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("form", LOSSES)
def test_accumulated_batches_train_to_the_bits_of_the_users_own_trainer(form, count):
    """Without a patch, over two epochs whose last step has fewer batches."""
    kind, given, options, _ = LOSSES[form]
    options = {**options, "max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": count}
    model, data = material.net(seed=3, kind=kind), material.Rows(40)
    evaluator = material.evaluator_of("optimizer", model=model, given=given, data=data, **options)
    found, steps = trained(evaluator, model)
    assert steps == 2 * -(-10 // count)
    material.assert_same(found, by_user(model, given=given, data=data, **options))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("form", LOSSES)
def test_a_term_that_a_patch_adds_counts_as_in_the_users_own_compute_loss(form, count):
    """To the last bit where the Trainer divides; where the items do, the sum is rounded once more."""
    kind, given, options, own = LOSSES[form]
    options = {**options, "gradient_accumulation_steps": count}
    model, data = material.net(seed=3, kind=kind), material.Rows(40)
    evaluator = material.evaluator_of("optimizer", model=model, given=given, data=data, **options)
    found, _ = trained(evaluator, model, lambda loss, model: loss + penalty(model))
    expected = by_user(model, kind=own, given=given, data=data, **options)
    if own is Penalized:
        material.assert_same(found, expected)
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-6)
    plain, _ = trained(evaluator, model)
    assert not all(map(torch.allclose, plain.parameters(), found.parameters()))


@pytest.mark.parametrize("patched", [False, True])
def test_batches_of_unlike_numbers_of_items_train_as_one_large_batch_in_a_loop_of_ones_own(patched):
    """Also where a batch has no item at all: its part is nothing, and no number is lost."""
    data, model = Uneven(), material.net(seed=3, kind=Items)
    options = {
        "max_steps": 2,
        "gradient_accumulation_steps": 5,
        "train_sampling_strategy": "sequential",
        "max_grad_norm": 0,
        "lr_scheduler_type": "constant",
    }
    evaluator = material.evaluator_of("optimizer", model=model, data=data, **options)
    patch = (lambda loss, model: loss * 3 + penalty(model)) if patched else None
    found, _ = trained(evaluator, model, patch)

    expected = copy.deepcopy(model)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9)
    for rows in (slice(0, 20), slice(20, 40)):
        optimizer.zero_grad()
        loss = expected(data.x[rows], labels=data.labels[rows])["loss"]
        if patched:
            loss = loss * 3 + penalty(expected)
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", LOSSES)
def test_a_patch_gets_the_mean_over_its_own_batch_and_the_batch(form):
    """However the loss is divided for the step."""
    kind, given, options, _ = LOSSES[form]
    model, data = material.net(seed=3, kind=kind), material.Rows(40)
    evaluator = material.evaluator_of(
        "optimizer", model=model, given=given, data=data, gradient_accumulation_steps=4, **options
    )
    seen = []

    def note(loss, batch):
        seen.append((loss.item(), tuple(batch["x"].shape), sorted(batch)))
        return loss

    with rebind.bind(evaluator, model) as binding:
        binding.patch_loss(note)
        binding.train(max_steps=3)
    assert [entry[1:] for entry in seen] == [((4, 6), ["labels", "x"])] * 10
    assert all(0.1 < loss < 3 for loss, *_ in seen)


def test_losses_in_an_evaluation_are_not_patched():
    """Also in one that the Trainer makes while it trains."""
    model = material.net(seed=3)
    evaluator = material.evaluator_of("optimizer", eval_strategy="steps", eval_steps=1)
    calls = []
    with rebind.bind(evaluator, model) as binding:
        binding.patch_loss(lambda loss: calls.append(model.training) or loss)
        binding.train(max_steps=3)
        assert calls == [True] * 3


def test_a_patch_that_returns_no_tensor_is_told():
    """And the model is as it was."""
    model = material.net(seed=3)
    with assert_pristine(model), rebind.bind(material.evaluator_of(), model) as binding:
        binding.patch_loss(lambda loss: None)
        with pytest.raises(rebind.TrainingError, match="must return the new loss"):
            binding.train()
