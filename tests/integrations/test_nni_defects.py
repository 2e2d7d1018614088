"""Where NNI's own evaluators fail and these do not."""

from dataclasses import dataclass

import pytest
import torch
from nni_algorithms import agp, lsq, taylor
from nni_material import KINDS, OPTIONS, TRAINING, Net, loader, loss_of, native_evaluator, train
from torch import nn

import rebind
import rebind.testing
from rebind.runtime.integrations.nni import as_nni

pytestmark = pytest.mark.integrations


def test_a_failed_bind_leaves_nothing_bound():
    """The next model is bound as if nothing had been."""
    model = Net()
    evaluator = as_nni(native_evaluator(model))
    with rebind.testing.assert_pristine(model.conv1), pytest.raises(rebind.MissingParametersError):
        evaluator.bind_model(model.conv1)
    assert evaluator.model is None
    evaluator.bind_model(model)
    evaluator.train(1, None)
    evaluator.unbind_model()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_in_the_training_gives_the_model_back(kind):
    """NNI does not call `unbind_model` then; hooks, patches and tasks are gone all the same."""
    module, make = KINDS[kind]
    model = module()
    evaluator = as_nni(make(model))
    pruner = taylor(model, evaluator)
    generate = pruner.generate_masks
    pruner.generate_masks = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        pruner.compress()
    assert evaluator.model is None
    assert evaluator.get_all_hooks() == []
    for part in model.modules():
        assert not any(value for key, value in vars(part).items() if key.endswith("_hooks")), part
    assert not any(parameter._backward_hooks for parameter in model.parameters())
    pruner.generate_masks = generate
    pruner._current_step = 0
    _, masks = pruner.compress()
    assert float(masks["conv2"]["weight"].mean()) == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_one_evaluator_serves_several_models_at_a_time(kind):
    """Both compressors are made before the first one compresses; the models differ in width."""
    module, make = KINDS[kind]
    narrow, wide = module(8), module(16)
    evaluator = as_nni(make(narrow))
    pruners = [agp(narrow, evaluator), taylor(wide, evaluator)]
    for pruner, limits in zip(pruners, ((12, None), ()), strict=True):
        _, masks = pruner.compress(*limits)
        assert float(masks["conv2"]["weight"].mean()) == 0.5


class Empty(Net):
    """A model that is falsy, as an empty ModuleList is."""

    def __len__(self):
        return 0


def test_a_model_of_length_zero_is_unbound():
    """It is asked whether there is a model, and not whether the model is true."""
    model = Empty()
    evaluator = as_nni(native_evaluator(model))
    evaluator.bind_model(model)
    evaluator.patch_optimizer_step([lambda: pytest.fail("still patched")], [])
    evaluator.unbind_model()
    assert evaluator.model is None
    evaluator.bind_model(model)
    evaluator.train(1, None)
    evaluator.unbind_model()


@dataclass
class Output:
    loss: torch.Tensor


def test_a_loss_in_a_dataclass_is_patched_and_the_batch_may_have_any_name():
    """NNI's passes over the first in silence, and fails with a KeyError for the second."""
    model = Net()
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), **OPTIONS)

    def step(pair, network):
        return Output(loss_of(pair, network))

    def loop(model, optimizers, training_step, max_steps=None):
        for pair in loader(TRAINING, 64):
            optimizers.zero_grad()
            training_step(network=model, pair=pair).loss.backward()
            optimizers.step()

    evaluator = as_nni(rebind.TorchEvaluator(loop, optimizer, training_step=step))
    evaluator.bind_model(model)
    shapes = []

    def patch(loss, batch):
        shapes.append([tuple(part.shape) for part in batch])
        return loss * 0

    evaluator.patch_loss(patch)
    before = model.fc.bias.detach().clone()
    with torch.no_grad():
        model.fc.bias.zero_()
    evaluator.train(1, None)
    assert shapes == [[(64, 1, 8, 8), (64,)]]
    assert not model.fc.bias.any()
    assert before.any()


def two_optimizers(model, loop):
    first = rebind.trace(torch.optim.SGD)([*model.conv1.parameters(), *model.conv2.parameters()], lr=0.05)
    rest = [p for name, p in model.named_parameters() if not name.startswith("conv")]
    second = rebind.trace(torch.optim.Adam)(rest, lr=1e-3)
    return as_nni(rebind.TorchEvaluator(loop, [first, second], training_step=loss_of, model=model))


def in_turns(model, optimizers, training_step, max_steps=None):
    for batch in loader(TRAINING, 64):
        for optimizer in optimizers:
            optimizer.zero_grad()
        training_step(batch, model).backward()
        for optimizer in optimizers:
            optimizer.step()


def only_the_second(model, optimizers, training_step, max_steps=None):
    return in_turns(model, optimizers[1:], training_step)


@pytest.mark.parametrize("loop", [in_turns, only_the_second])
def test_tasks_run_once_for_each_step_with_several_optimizers(loop):
    """NNI's are on the first optimizer only: where it rests, masks are never made."""
    model = Net()
    steps = []
    evaluator = two_optimizers(model, loop)
    evaluator.bind_model(model)
    evaluator.patch_optimizer_step([lambda: steps.append("before")], [lambda: steps.append("after")])
    evaluator.train(5, None)
    assert steps == ["before", "after"] * 5
    evaluator.unbind_model()
    pruner = taylor(model, evaluator, steps=5)
    _, masks = pruner.compress()
    assert float(masks["conv2"]["weight"].mean()) == 0.5


class Scaled(Net):
    """A model with a parameter at its root."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.gain * super().forward(images)


def test_parameters_join_at_the_root_once_and_leave_again():
    """NNI's fails for a root parameter, adds a tensor as often as it is told, and cannot take it out."""
    model = Scaled()
    evaluator = as_nni(native_evaluator(model))
    evaluator.bind_model(model)
    groups = evaluator.binding.optimizers[0].param_groups
    count = len(groups[0]["params"])
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    evaluator.patch_optim_param_group({"": [one], "fc": [other]})
    evaluator.patch_optim_param_group({"fc": [other, one]})
    assert len(groups[0]["params"]) == count + 2
    evaluator.revert_optim_param_group()
    assert len(groups[0]["params"]) == count
    evaluator.patch_optim_param_group({"fc": [other]})
    evaluator.unbind_model()
    assert len(groups[0]["params"]) == count


def test_parameters_join_the_group_that_nni_would_choose():
    """The group of the module's own; of a module in it; the first of all."""
    model = Net()
    decayed = [p for name, p in model.named_parameters() if name.endswith("weight")]
    free = [p for name, p in model.named_parameters() if not name.endswith("weight")]
    block = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    first = rebind.trace(torch.optim.SGD)(block, lr=0.05, weight_decay=0.1)
    evaluator = as_nni(rebind.TorchEvaluator(train, first, training_step=loss_of, model=model))
    quantizer = lsq(model, evaluator)
    evaluator.bind_model(model, quantizer._get_param_names_map())
    scales = quantizer.patch_optimizer_param_group()
    evaluator.patch_optim_param_group({**scales, "relu1": [nn.Parameter(torch.ones(1))]})
    groups = evaluator.binding.optimizers[0].param_groups
    joined = {id(scale) for listed in scales.values() for scale in listed}
    assert joined < {id(parameter) for parameter in groups[0]["params"]}
    assert len(groups[0]["params"]) == len(decayed) + len(joined) + 1
    assert len(groups[1]["params"]) == len(free)
    evaluator.unbind_model()
