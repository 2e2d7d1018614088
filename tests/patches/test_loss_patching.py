"""Patches of the loss and the criterion; the oracle is the same loss written by hand."""

import collections
import copy
import dataclasses
import itertools
import types
import typing

import pytest
import torch
from patch_material import (
    BATCHES,
    TARGETS,
    assert_same,
    bound,
    by_hand,
    evaluator_of,
    mse,
    net,
    steps_by_hand,
)
from torch import nn

from rebind import TrainingError, bind


def test_a_penalty_added_by_a_patch_trains_as_one_written_by_hand():
    """Bit-equal weights after 10 steps."""
    binding = bound()
    with binding:
        binding.patch_loss(lambda loss: loss + 0.1 * binding.model.fc1.weight.abs().sum())
        binding.train(10)

    def loop(model, optimizer, _):
        penalised = lambda out, y: mse(out, y) + 0.1 * model.fc1.weight.abs().sum()
        steps_by_hand(10, penalised)(model, optimizer, None)

    model = by_hand(loop)
    assert_same(binding.model, model)


def test_the_last_patch_is_outermost_whatever_its_kind():
    """Loss and criterion patches nest in the order of their coming."""
    order = []
    with bound() as binding:
        binding.patch_loss(lambda loss: (order.append("loss 1"), 2 * loss)[1])

        def wrap(criterion):
            def wrapped(out, y):
                loss = criterion(out, y)
                order.append("criterion 2")
                return loss + 1

            return wrapped

        binding.patch_criterion(wrap)
        binding.patch_loss(lambda loss: (order.append("loss 3"), 3 * loss)[1])
        out, y = torch.zeros(2), torch.ones(2)
        assert binding.criterion(out, y) == 3 * (2 * mse(out, y) + 1)
    assert order == ["loss 1", "criterion 2", "loss 3"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_patches_revert_alone_and_in_any_order(order):
    """What is left is always the composition of the others, applied once each."""
    applied = []
    functions = [lambda v: 2 * v, lambda v: v + 1, lambda v: v * v]

    def wrap(criterion):
        applied.append("wrapped")
        return lambda *inputs: functions[1](criterion(*inputs))

    with bound() as binding:
        handles = [
            binding.patch_loss(functions[0]),
            binding.patch_criterion(wrap),
            binding.patch_loss(functions[2]),
        ]
        left = [0, 1, 2]
        out, y = torch.tensor([3.0]), torch.tensor([1.0])
        for number in order:
            handles[number].revert()
            handles[number].revert()
            left.remove(number)
            value = mse(out, y)
            for index in left:
                value = functions[index](value)
            assert binding.criterion(out, y) == value
        assert binding.criterion is mse
    assert applied == ["wrapped"]


def test_a_handle_is_a_context_manager():
    """Leaving the block reverts, by an exception as well."""
    with bound() as binding:
        with binding.patch_loss(lambda loss: loss * 0) as handle:
            assert handle.active
            assert binding.criterion(torch.ones(1), torch.zeros(1)) == 0
        assert not handle.active
        with pytest.raises(ZeroDivisionError), binding.patch_criterion(lambda _: lambda *_: 1 / 0):
            binding.criterion(1, 2)
        assert binding.criterion is mse


def test_a_patch_gets_what_the_criterion_got_as_far_as_it_asks():
    """The loss alone, the first inputs, all of them; what has a default keeps it."""
    seen = []
    with bound() as binding:
        binding.patch_loss(lambda loss: (seen.append(()), loss)[1])
        binding.patch_loss(lambda loss, out: (seen.append((out,)), loss)[1])
        binding.patch_loss(lambda loss, *inputs: (seen.append(inputs), loss)[1])
        binding.patch_loss(lambda loss, scale=2.0: (seen.append((scale,)), loss)[1])
        out, y = torch.zeros(2), torch.ones(2)
        binding.criterion(target=y, input=out)
    assert [len(values) for values in seen] == [0, 1, 2, 1]
    assert seen[1][0] is out
    assert seen[2][0] is out
    assert seen[2][1] is y
    assert seen[3] == (2.0,)


Named = collections.namedtuple("Named", ["logits", "loss"])


class Typed(typing.NamedTuple):
    loss: torch.Tensor
    more: int


@dataclasses.dataclass
class Plain:
    loss: torch.Tensor
    more: int = 1


@dataclasses.dataclass(frozen=True)
class Frozen:
    loss: torch.Tensor
    more: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    loss: torch.Tensor
    more: int = 1


def model_output(loss):
    from transformers.modeling_outputs import SequenceClassifierOutput

    return SequenceClassifierOutput(loss=loss, logits=torch.ones(2))


OUTPUTS = {
    "tensor": lambda loss: loss,
    "tuple": lambda loss: (loss, "more"),
    "list": lambda loss: [loss, "more"],
    "namedtuple": lambda loss: Named("more", loss),
    "typed namedtuple": lambda loss: Typed(loss, 1),
    "dict": lambda loss: {"more": 1, "loss": loss},
    "user dict": lambda loss: collections.UserDict(more=1, loss=loss),
    "ordered dict": lambda loss: collections.OrderedDict(more=1, loss=loss),
    "dataclass": Plain,
    "frozen dataclass": Frozen,
    "slotted dataclass": Slotted,
    "namespace": lambda loss: types.SimpleNamespace(loss=loss, more=1),
    "transformers": model_output,
}


def loss_of(output):
    if isinstance(output, torch.Tensor):
        return output
    if hasattr(output, "loss"):
        return output.loss
    return output["loss"] if isinstance(output, collections.abc.Mapping) else output[0]


def train_steps(model, optimizers, training_step):
    model.train()
    for number in range(3):
        optimizers.zero_grad()
        loss_of(training_step((BATCHES[number], TARGETS[number]), model)).backward()
        optimizers.step()


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_a_training_step_keep_their_type_and_the_loss_in_them_is_patched(kind):
    """Also the rest of the output stays, and the step's own value is not changed in place."""
    given = []

    def training_step(batch, model):
        given.append(OUTPUTS[kind](mse(model(batch[0]), batch[1])))
        return given[-1]

    def doubled(loss, batch):
        assert batch[0] is BATCHES[seen[0]]
        seen[0] += 1
        return 2 * loss

    seen = [0]
    with bound(training_func=train_steps, criterion=None, training_step=training_step) as binding:
        with binding.patch_loss(doubled):
            binding.train()
            assert_same(binding.model, by_hand(steps_by_hand(3, lambda out, y: 2 * mse(out, y))))
            seen[0] = 0
            output = binding.criterion((BATCHES[0], TARGETS[0]), binding.model)
        assert type(output) is type(given[-1])
        assert torch.equal(loss_of(output), 2 * loss_of(given[-1]))
        if hasattr(output, "more"):
            assert output.more == given[-1].more


@pytest.mark.parametrize(
    "output",
    [
        None,
        3.0,
        "loss",
        (),
        collections.namedtuple("Empty", [])(),
        (3.0, 1),
        {"no": 1},
        {"loss": 2.0},
        object(),
        types.MappingProxyType({"loss": 1}),
    ],
)
def test_a_loss_that_a_patch_cannot_reach_raises(output):
    """Never in silence; without a patch the training function may get whatever it likes."""
    with bound(criterion=lambda out, y: output) as binding:
        assert binding.criterion(1, 2) is output
        with (
            binding.patch_loss(lambda loss: loss),
            pytest.raises(TrainingError, match="cannot reach the loss"),
        ):
            binding.criterion(1, 2)


def test_a_mapping_that_cannot_be_written_is_built_anew():
    with bound(criterion=lambda out, y: types.MappingProxyType({"loss": mse(out, y)})) as binding:
        binding.patch_loss(lambda loss: loss + 1)
        assert binding.criterion(torch.ones(1), torch.ones(1))["loss"] == 1


def test_a_computed_loss_attribute_cannot_be_patched_and_raises():
    class Output:
        @property
        def loss(self):
            return torch.ones(1)

    with bound(criterion=lambda out, y: Output()) as binding:
        binding.patch_loss(lambda loss: loss)
        with pytest.raises(TrainingError, match="cannot reach the loss in a Output"):
            binding.criterion(1, 2)


def test_a_patch_that_returns_no_tensor_raises_and_is_named():
    with bound() as binding:
        binding.patch_loss(print_it)
        with pytest.raises(TrainingError, match="loss patch print_it returned NoneType"):
            binding.train(1)


def print_it(loss):
    """Returns nothing, as one forgets."""


@pytest.mark.parametrize("wrong", [None, 3, "loss"])
def test_what_is_no_function_is_refused_at_once(wrong):
    with bound() as binding:
        for patch in (binding.patch_loss, binding.patch_criterion):
            with pytest.raises(TrainingError, match="takes a function"):
                patch(wrong)
        with pytest.raises(TrainingError, match="criterion patch takes the criterion"):
            binding.patch_criterion(lambda criterion: wrong)
        with pytest.raises(TrainingError, match="function without arguments"):
            binding.before_step(wrong)
        assert binding.criterion is mse


def accumulate(parts):
    """A loop that divides each loss by the number of parts of a batch."""

    def loop(model, optimizers, criterion):
        model.eval()  # so that batch norm is the same for a batch and its parts
        for number in range(4):
            optimizers.zero_grad()
            xs, ys = BATCHES[number].double().chunk(parts), TARGETS[number].double().chunk(parts)
            for x, y in zip(xs, ys, strict=True):
                (criterion(model(x), y) / parts).backward()
            optimizers.step()

    return loop


def test_a_penalty_has_the_same_gradient_with_and_without_accumulation():
    """A batch in one part, in two and in four trains the same weights."""
    models = []
    for parts in (1, 2, 4):
        with bound(net().double(), training_func=accumulate(parts)) as binding:
            penalty = lambda loss, b=binding: loss + 0.5 * b.model.fc1.weight.square().sum()
            binding.patch_loss(penalty)
            binding.train()
            models.append(copy.deepcopy(binding.model.state_dict()))
    for other in models[1:]:
        for name, value in models[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-9)


def test_a_criterion_moved_by_the_loop_keeps_its_patches():
    """`criterion = criterion.to(device)` gives back the patched one; its attributes are the criterion's."""
    criterion = nn.SmoothL1Loss(beta=2.0)

    def loop(model, optimizers, criterion):
        criterion = criterion.to("cpu").train()
        assert criterion.beta == 2.0
        criterion.beta = 3.0
        seen.append(criterion(model(BATCHES[0]), TARGETS[0]))
        seen.append(criterion.forward(model(BATCHES[0]), TARGETS[0]))

    seen = []
    with bound(training_func=loop, criterion=criterion) as binding:
        binding.patch_loss(lambda loss: loss * 0)
        binding.train()
    assert seen == [0, 0]
    assert criterion.beta == 3.0
    assert set(vars(criterion)) == set(vars(nn.SmoothL1Loss()))


def test_patches_stay_when_another_model_is_bound_and_go_when_it_closes():
    other = net(3)
    with bound() as binding:
        binding.patch_loss(lambda loss: loss * 0)
        binding.rebind(other)
        kept = binding.criterion
        assert kept(torch.ones(1), torch.zeros(1)) == 0
    assert kept(torch.ones(1), torch.zeros(1)) == 1


def test_bindings_of_one_evaluator_do_not_share_their_patches():
    model, other = net(), net(1)
    evaluator = evaluator_of(model)
    with bind(evaluator, model) as first, bind(evaluator, other) as second:
        first.patch_loss(lambda loss: loss * 0)
        assert second.criterion is mse
        assert evaluator.criterion is mse
