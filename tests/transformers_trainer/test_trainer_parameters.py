"""Parameters that join a Trainer's optimizer train as if the user's own optimizer had had them."""

from __future__ import annotations

import copy

import pytest
import torch
import trainer_material as material
from torch import nn
from transformers import TrainerCallback

from rebind import BindError, bind

COUNTS = [1, 3]


class Scaled(material.Net):
    """Multiplies by a scale that the model does not hold as a parameter, as a quantizer's may be."""

    def __init__(self, width=8):
        super().__init__(width)
        self.scales = [torch.ones(2, requires_grad=True)]

    def forward(self, x, labels=None):
        logits = super().forward(x)["logits"] * self.scales[0]
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Adapted(material.Net):
    """Has an adaptor that the recorded model did not have."""

    def __init__(self, width=8):
        super().__init__(width)
        self.adaptor = nn.Linear(6, 2, bias=False)

    def forward(self, x, labels=None):
        logits = super().forward(x)["logits"] + self.adaptor(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Zeroing(TrainerCallback):
    """A Trainer zeroes the gradients of what the model holds, and the user those of the rest."""

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        optimizer.zero_grad()


class Joining(material.Trainer):
    """The user's own way to train the scale with the biases, in the optimizer of the Trainer."""

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer()
        biases = [g for g in optimizer.param_groups if any(p is self.model.fc2.bias for p in g["params"])]
        biases[0]["params"].append(self.model.scales[0])
        return optimizer


def scaled():
    return material.net(seed=3, kind=Scaled)


def added(evaluator, model, additions, **limits):
    with bind(evaluator, model) as binding:
        binding.add_parameters(additions)
        binding.train(**limits)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("way", ["default", "optimizer and scheduler", "groups"])
def test_a_tensor_beside_the_model_trains_as_in_the_users_own_optimizer(way, count):
    """With the options and the rate of the named parameter's group; its gradients are zeroed each time."""
    options = {"gradient_accumulation_steps": count, "weight_decay": 0.3}
    model, expected = scaled(), scaled()
    trainer = Joining(
        expected,
        material.arguments(**options),
        train_dataset=material.Rows(),
        callbacks=[Zeroing()],
        **material.WAYS[way](expected),
    )
    trainer.train()
    added(material.evaluator_of(way, **options), model, {"fc2.bias": model.scales})
    material.assert_same(model, expected)
    assert torch.equal(model.scales[0], expected.scales[0])
    assert not torch.equal(model.scales[0], torch.ones(2))


@pytest.mark.parametrize("count", COUNTS)
def test_a_new_layer_of_the_model_joins_a_recorded_optimizer(count):
    """As if it had been given to the optimizer by hand; without joining, it stays as it is."""
    model = material.net(seed=3, kind=Adapted)
    expected, alone = copy.deepcopy(model), copy.deepcopy(model)
    old = [p for name, p in expected.named_parameters() if not name.startswith("adaptor")]
    optimizer = torch.optim.SGD([*old, expected.adaptor.weight], lr=0.1, momentum=0.9)
    trainer = material.Trainer(
        expected,
        material.arguments(gradient_accumulation_steps=count),
        train_dataset=material.Rows(),
        optimizers=(optimizer, None),
    )
    trainer.train()
    evaluator = material.evaluator_of("optimizer", gradient_accumulation_steps=count)
    added(evaluator, model, {"fc2": [model.adaptor.weight]})
    material.assert_same(model, expected)
    with bind(evaluator, alone) as binding:
        assert binding.report.new == ("adaptor.weight",)
        binding.train()
    assert torch.equal(alone.adaptor.weight, material.net(seed=3, kind=Adapted).adaptor.weight)


def test_what_has_left_the_optimizer_is_trained_no_more():
    """It trains as if it had never joined, and the scale is what it was when it left."""
    model, expected = scaled(), scaled()
    with bind(material.evaluator_of("optimizer"), expected) as binding:
        binding.train()
    with bind(material.evaluator_of("optimizer"), model) as binding:
        with binding.add_parameters({"fc2.bias": model.scales}):
            assert sum(len(group["params"]) for group in binding.optimizers[0].param_groups) == 7
        assert sum(len(group["params"]) for group in binding.optimizers[0].param_groups) == 6
        binding.train()
    material.assert_same(model, expected)
    assert torch.equal(model.scales[0], torch.ones(2))


def test_a_name_that_is_not_in_the_model_is_told():
    with bind(material.evaluator_of(), scaled()) as binding:
        with pytest.raises(BindError, match="fc9"):
            binding.add_parameters({"fc9.bias": binding.model.scales})
