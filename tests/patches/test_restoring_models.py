"""However a block is left, the model is as it was before; copies of what was bound stand on their own."""

import pytest
import torch
from patch_material import BATCHES, bound, evaluator_of, net, train, train_on
from torch import nn
from torch.nn.utils import prune

from rebind import BindError, bind, trace
from rebind.testing import assert_pristine


def everything(binding):
    """Put one of each kind onto a binding."""
    binding.patch_loss(lambda loss: loss * 2)
    binding.patch_criterion(lambda criterion: lambda *inputs: criterion(*inputs))
    binding.before_step(lambda: None)
    binding.after_step(lambda: None)
    binding.forward_hook("fc1", lambda *_: None)
    binding.backward_hook("fc2", lambda *_: None)
    binding.gradient_hook("fc1.weight", lambda _: None)
    binding.collect("", keep=2)
    binding.add_parameters({"fc1": [nn.Parameter(torch.ones(2))]})


def disorderly(model, optimizers, criterion):
    """Leaves everything as it should not."""
    model.eval()
    model.norm.train()
    model.fc2.weight.requires_grad_(False)
    model.fc1.register_forward_hook(lambda *_: None)
    model.fc2.register_full_backward_hook(lambda *_: None)
    model.register_state_dict_post_hook(lambda *_: None)
    train(model, optimizers, criterion, max_steps=2)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_model_is_as_it_was_however_the_block_is_left(error, mixed):
    """`__dict__`, hooks, flags, modes and gradients of every module."""
    model = net()
    if mixed:
        model.fc1.eval()
        model.fc1.bias.requires_grad_(False)
        model.fc2.register_forward_hook(lambda *_: None)
    with assert_pristine(model):
        try:
            with bound(model, disorderly) as binding:
                everything(binding)
                binding.train()
                if error is not None:
                    raise error
        except BaseException as caught:
            assert type(caught) is error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_in_the_training_leaves_nothing(error):
    def fail(model, optimizers, criterion):
        disorderly(model, optimizers, criterion)
        raise error("in the loop")

    model = net()
    with assert_pristine(model), pytest.raises(error, match="in the loop"), bound(model, fail) as binding:
        everything(binding)
        binding.train(max_steps=10)


def test_closing_a_generator_that_is_in_the_block_gives_the_model_back():
    model = net()

    def steps():
        with bound(model) as binding:
            everything(binding)
            while True:
                binding.train(1)
                yield binding.steps

    with assert_pristine(model):
        generator = steps()
        assert next(generator) == 1
        assert next(generator) == 2
        generator.close()


def test_a_block_without_with_is_closed_once():
    model = net()
    with assert_pristine(model):
        binding = bound(model)
        everything(binding)
        binding.close()
        binding.close()
    for use in (binding.train, binding.evaluate, binding.state_dict, lambda: binding.patch_loss(abs)):
        with pytest.raises(BindError, match="closed"):
            use()
    with pytest.raises(BindError, match="closed"), binding:
        pass


def test_a_failed_bind_leaves_nothing():
    """Neither on the model nor on the evaluator, which binds to a good model afterwards."""
    model = net()
    evaluator = evaluator_of(model)
    stranger = nn.Sequential(nn.Linear(2, 1))
    with assert_pristine(stranger), pytest.raises(BindError):
        bind(evaluator, stranger)

    def failing(params):
        model.eval()
        model.register_forward_hook(lambda *_: None)
        if len(made):
            raise RuntimeError("no more")
        made.append(1)
        return torch.optim.SGD(params, lr=0.1)

    made = []
    other = net(1)
    late = evaluator_of(other, make=failing)
    model = other
    other.train()
    other._forward_hooks.clear()
    with assert_pristine(other), pytest.raises(BindError, match="no more"):
        bind(late, other)
    with bind(evaluator, net(2)) as binding:
        binding.train(1)


def test_the_optimizers_are_without_hooks_when_the_block_is_left():
    with bound() as binding:
        everything(binding)
        binding.train(1)
        optimizer = binding.optimizers[0]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert "step" not in vars(optimizer)


def test_a_mask_that_came_in_the_block_goes_on_masking():
    """Hooks of surgery belong to the model, which would forget its mask without them; ours are gone."""
    model = net()
    with bound(model, train_on) as binding:
        everything(binding)
        prune.l1_unstructured(model.fc1, "weight", 0.5)
        binding.train(max_steps=2)
    assert len(model.fc1._forward_pre_hooks) == 1
    assert not model.fc1._forward_hooks
    assert not model._forward_hooks
    with torch.no_grad():
        model.fc1.weight_orig.fill_(3.0)
    model(BATCHES[0])
    assert sorted(set(model.fc1.weight.flatten().tolist())) == [0.0, 3.0]


def test_a_mask_that_was_made_permanent_in_the_block_stays_so():
    """The hook that masked before does not come back, where what it masked is gone."""
    model = net()
    prune.l1_unstructured(model.fc1, "weight", 0.5)
    with bound(model) as binding:
        prune.remove(model.fc1, "weight")
        binding.forward_hook("fc1", lambda *_: None)
    assert not model.fc1._forward_pre_hooks
    assert not model.fc1._forward_hooks
    model(BATCHES[0])


def test_other_bindings_of_one_model_keep_their_hooks_while_they_are_within():
    """Bindings nest; the inner one takes away only what came after it."""
    model = net()
    with assert_pristine(model), bound(model) as outer:
        collection = outer.collect("fc1", keep=1)
        with bound(model) as inner:
            inner.collect("fc1", keep=1)
            inner.train(1)
        outer.train(1)
        assert collection.count == 2


def test_a_traced_factory_stays_without_marks_of_a_binding():
    """Neither the model's class nor the optimizer's is written to."""
    before = {cls: dict(vars(cls)) for cls in (type(net()), torch.optim.SGD)}
    with bound() as binding:
        everything(binding)
        binding.train(2)
    trace(torch.optim.SGD)
    assert {cls: dict(vars(cls)) for cls in before} == before
