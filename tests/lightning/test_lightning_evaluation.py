"""A score by `Trainer.test` or `Trainer.validate`, and an example input out of the data."""

import copy
from typing import ClassVar, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from lightning_material import QUIET, Data, Net, TestedData, TestedNet, data_set, evaluator_of, mse, net
from torch import nn
from torch.utils.data import DataLoader

from rebind import BindError, EvaluationError, bind
from rebind.testing import assert_pristine


def evaluated(model, **options):
    with assert_pristine(model), bind(evaluator_of(**options), model) as binding:
        return binding.evaluate()


def by_validating(model):
    model.eval()
    with torch.no_grad():
        losses = [mse(model(x), y) for x, y in DataLoader(data_set(8, seed=1), 4)]
    return float(sum(losses) / len(losses))


def test_the_score_is_the_metric_default_and_the_others_are_beside_it():
    model = net()
    result = evaluated(model)
    assert result.score == pytest.approx(-by_validating(model))
    assert set(result.info) == {"default", "val_loss"}


def test_another_metric_is_named_in_the_evaluator():
    model = net()
    assert evaluated(model, metric="val_loss").score == pytest.approx(by_validating(model))


def test_a_module_and_a_data_module_with_a_test_are_tested():
    assert evaluated(net(kind=TestedNet), data=TestedData).score == 1.0


@pytest.mark.parametrize(("kind", "data"), [(Net, TestedData), (TestedNet, Data)])
def test_without_a_test_step_or_test_data_the_validation_counts(kind, data):
    assert evaluated(net(kind=kind), data=data).score < 0


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_an_evaluation_in_another_precision_leaves_the_weights_as_they_were(precision):
    """The score is that of the user's own Trainer, which casts the module for good."""
    model, own = net(), net()
    state = copy.deepcopy(model.state_dict())
    trainer = pl.Trainer(**QUIET, precision=precision, logger=False)
    expected = trainer.validate(own, Data(), verbose=False)[0]["default"]
    assert own.dtype is own.fc1.weight.dtype is not torch.float32
    with assert_pristine(model), bind(evaluator_of(precision=precision), model) as binding:
        assert binding.evaluate().score == expected
    assert model.dtype is torch.float32
    assert [name for name, value in model.state_dict().items() if not torch.equal(state[name], value)] == []


class TwoLoaders(Data):
    def val_dataloader(self):
        return [DataLoader(data_set(8, seed=1), 4), DataLoader(data_set(4, seed=2), 4)]


class ForTwo(Net):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("default", float(dataloader_idx + 1))
        if dataloader_idx:
            self.log("second", 5.0)


def test_the_score_is_the_mean_over_the_data_loaders_that_logged_it():
    result = evaluated(net(kind=ForTwo), data=TwoLoaders)
    assert result.score == 1.5
    assert result.info == {
        "default/dataloader_idx_0": 1.0,
        "default/dataloader_idx_1": 2.0,
        "second/dataloader_idx_1": 5.0,
    }
    assert evaluated(net(kind=ForTwo), data=TwoLoaders, metric="second").score == 5.0
    assert evaluated(net(kind=ForTwo), data=TwoLoaders, metric="default/dataloader_idx_0").score == 1.0


def test_a_metric_that_was_not_logged_is_told_with_those_that_were():
    with pytest.raises(EvaluationError, match=r"'accuracy' was not logged, only 'default', 'val_loss'"):
        evaluated(net(), metric="accuracy")


class NotANumber(Net):
    def validation_step(self, batch, batch_idx):
        self.log("default", float("nan"))


def test_a_score_that_is_not_a_number_is_refused():
    with pytest.raises(EvaluationError, match="NaN"):
        evaluated(net(kind=NotANumber))


class Untested(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch, batch_idx):
        return mse(self.fc(batch[0]), batch[1])


def test_a_module_that_cannot_be_evaluated_says_what_it_lacks():
    with pytest.raises(EvaluationError, match="no test_step with a test_dataloader"):
        evaluated(Untested())


def test_evaluating_leaves_weights_and_training_as_they_are():
    model = net()
    with bind(evaluator_of(), model) as binding:
        before = {name: value.clone() for name, value in model.state_dict().items()}
        binding.evaluate()
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert all(module.training for module in model.modules())


def sampled(model, **options):
    with bind(evaluator_of(**options), model) as binding:
        state = torch.get_rng_state()
        found = binding.dummy_input
        assert torch.equal(state, torch.get_rng_state())
        return found


def test_a_given_dummy_input_comes_first():
    given = torch.ones(1, 2)
    assert torch.equal(sampled(net(), dummy_input=given), given)


class WithExample(Net):
    def __init__(self, form="optimizer"):
        super().__init__(form)
        self.example_input_array = torch.zeros(3, 2)


def test_a_modules_example_input_comes_second():
    assert torch.equal(sampled(net(kind=WithExample)), torch.zeros(3, 2))


class Predicting(Data):
    def predict_dataloader(self):
        return DataLoader(data_set(6).tensors[0], 6)


def test_a_batch_to_predict_is_what_forward_takes():
    assert torch.equal(sampled(net(), data=Predicting), data_set(6).tensors[0])


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Shaped(Data):
    """Gives one batch of the class's choice."""

    batch = None

    def train_dataloader(self):
        return [type(self).batch]


X, Y = torch.ones(4, 2), torch.zeros(4, 1)


class Tensors(Shaped):
    batch = X


class Mapped(Shaped):
    batch: ClassVar = {"x": X, "label": Y}


class Named(Shaped):
    batch = Pair(X, Y)


class Short(Shaped):
    batch: ClassVar = [X]


class TwoInputs(Net):
    def forward(self, x, mask, scale=1.0):
        return super().forward(x) * mask * scale


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [(Net, Tensors, X), (Net, Mapped, {"x": X}), (Net, Named, Pair(X, Y)), (TwoInputs, Data, (2, 1))],
)
def test_of_a_training_batch_as_much_is_taken_as_forward_takes(kind, data, expected):
    found = sampled(net(kind=kind), data=data)
    if kind is TwoInputs:
        assert tuple(part.shape[1] for part in found) == expected
    elif data is Tensors:
        assert torch.equal(found, expected)
    else:
        assert type(found) is type(expected)
        assert len(found) == len(expected)


def test_a_batch_with_too_little_in_it_is_told():
    with pytest.raises(BindError, match="takes 2 arguments, and a batch has 1 parts"):
        sampled(net(kind=TwoInputs), data=Short)


def test_another_model_gets_an_input_of_its_own():
    with bind(evaluator_of(), net()) as binding:
        assert binding.dummy_input.shape == (4, 2)
        binding.rebind(net(kind=WithExample))
        assert binding.dummy_input.shape == (3, 2)
