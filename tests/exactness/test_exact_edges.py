"""What is done around a construction counts, or is refused with a reason; it is never lost in silence."""

import collections
import copy
import functools

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim import SGD, Adam
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import AveragedModel

import rebind
from rebind import TorchEvaluator, construction_of, trace
from rebind.testing import assert_reinitialises_exactly
from rebind.testing.loops import train

mse = nn.functional.mse_loss


def net(width=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))


def evaluator_of(optimizers, schedulers=None, model=None):
    return TorchEvaluator(train, optimizers, mse, schedulers, model=model)


def optimizer_on(evaluator, model):
    with rebind.bind(evaluator, model) as binding:
        return binding.optimizers[0]


def test_a_group_that_is_added_later_is_told_apart_from_the_defaults_it_got():
    """A tensor learning rate that the new group takes from the defaults is one tensor again."""
    model = net()
    optimizer = trace(Adam)(model[0].parameters(), lr=torch.tensor(0.1))
    optimizer.add_param_group({"params": model[1].parameters()})
    evaluator = evaluator_of(optimizer, model=model)
    again = optimizer_on(evaluator, net(5, 1))
    assert again.param_groups[0]["lr"] is again.param_groups[1]["lr"] is again.defaults["lr"]
    assert_reinitialises_exactly(evaluator, net(5, 1))


def test_a_tensor_that_is_shared_stays_shared():
    """One tensor learning rate for two optimizers and their groups is one tensor after a round trip."""
    model, rate = net(), torch.tensor(0.1)
    first = trace(SGD)(
        [{"params": model[0].weight, "lr": rate}, {"params": model[0].bias, "lr": rate}], lr=1.0
    )
    second = trace(SGD)(model[1].parameters(), lr=rate)
    scheduler = trace(lrs.StepLR)(first, 1)
    evaluator = evaluator_of([first, second], scheduler, model)
    for one in (evaluator, rebind.loads(rebind.dumps(evaluator), trusted=True)):
        with rebind.bind(one, net(5, 1)) as binding:
            a, b = binding.optimizers
            assert a.param_groups[0]["lr"] is a.param_groups[1]["lr"] is b.param_groups[0]["lr"]
        assert_reinitialises_exactly(one, net(5, 1))
    text = evaluator.model_dump_json()
    assert TorchEvaluator.model_validate_json(text, context={"allow": ["rebind"]}) == evaluator


def test_a_tensor_option_that_is_changed_in_place_changes_wherever_it_is_shared():
    """`group["lr"].fill_()` reaches the defaults and the other groups, as it did for the caller."""
    model = net()
    optimizer = trace(SGD)([{"params": [p]} for p in model.parameters()], lr=torch.tensor(0.1))
    optimizer.param_groups[0]["lr"].fill_(0.25)
    evaluator = evaluator_of(optimizer, model=model)
    again = optimizer_on(evaluator, net(5, 1))
    assert [float(group["lr"]) for group in again.param_groups] == [0.25] * 4
    assert again.param_groups[0]["lr"] is again.param_groups[3]["lr"]


def test_a_tensor_inside_an_option_that_is_changed_in_place_counts():
    """The same for a tensor that stands in a tuple, as betas do."""
    model = net()
    betas = (torch.tensor(0.5), torch.tensor(0.75))
    optimizer = trace(Adam)(model.parameters(), lr=0.1, betas=betas, foreach=False)
    optimizer.param_groups[0]["betas"][1].fill_(0.5)
    again = optimizer_on(evaluator_of(optimizer), net(5, 1))
    assert [float(beta) for beta in again.param_groups[0]["betas"]] == [0.5, 0.5]


def test_a_float_in_place_of_an_equal_tensor_counts():
    """A tensor and a number are not the same option, even where they are equal."""
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=torch.tensor(0.5))
    optimizer.param_groups[0]["lr"] = 0.5
    assert isinstance(optimizer_on(evaluator_of(optimizer), net()).param_groups[0]["lr"], float)


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self, step):
        self.calls += 1
        return 1 / self.calls


def test_an_object_that_counts_its_calls_is_recorded_as_it_was_before_them():
    """A schedule with state starts anew in every build, also where several groups and schedulers share it."""
    model, counter = net(), Counter()
    optimizer = trace(SGD)([{"params": [p]} for p in model.parameters()], lr=0.1)
    first = trace(lrs.LambdaLR)(optimizer, [counter] * 4)
    second = trace(lrs.MultiplicativeLR)(optimizer, counter)
    assert counter.calls == 4
    evaluator = evaluator_of(optimizer, [first, second], model)
    for _ in range(2):
        with rebind.bind(evaluator, net(4, 2)) as binding:
            once, twice = binding.lr_schedulers
            assert once.lr_lambdas[0] is once.lr_lambdas[3] is twice.lr_lambdas[0]
            assert once.lr_lambdas[0].calls == 4
    assert_reinitialises_exactly(evaluator, net(4, 2))


def test_a_set_of_parameters_is_a_set_again():
    """torch takes a set, in whatever order it has; the reinitialised optimizer gets one, too."""
    model = net()
    evaluator = evaluator_of(trace(SGD)(set(model.parameters()), lr=0.1), model=model)
    other = net(5, 1)
    assert set(optimizer_on(evaluator, other).param_groups[0]["params"]) == set(other.parameters())


@pytest.mark.parametrize(
    "style",
    [
        lambda model: dict(model.named_parameters()).values(),
        lambda model: dict(model.named_parameters()).items(),
        lambda model: [collections.OrderedDict(params=model.parameters(), lr=0.5)],
        lambda model: collections.deque(model.parameters()),
        lambda model: ({"params": child.parameters()} for child in model),
        lambda model: nn.ParameterList(model.parameters()),
    ],
)
def test_other_collections_are_followed(style):
    """Views of a dict, ordered dicts, queues and generators of groups lead to their parameters."""
    model = net()
    given = style(model)
    if isinstance(given, nn.ParameterList):
        model.listed = given
    evaluator = evaluator_of(trace(SGD)(given, lr=0.1), model=model)
    other = net(5, 1)
    if isinstance(given, nn.ParameterList):
        other.listed = nn.ParameterList(other.parameters())
    inside = {id(p) for p in other.parameters()}
    groups = optimizer_on(evaluator, other).param_groups
    assert {id(p) for group in groups for p in group["params"]} == inside


def test_parameters_inside_a_partial_are_found():
    """What a partial holds is recorded like any other argument."""
    model = net()
    optimizer = trace(functools.partial(SGD, list(model.parameters()), momentum=0.9))(lr=0.1)
    assert construction_of(optimizer).target is SGD
    evaluator = evaluator_of(optimizer, model=model)
    assert_reinitialises_exactly(evaluator, net(5, 1))


def test_parameters_inside_a_closure_are_refused():
    """A factory that closes over a model would train that model for ever."""
    model = net()
    with pytest.raises(ValidationError, match="not among the arguments of the traced call"):
        evaluator_of(trace(lambda lr: SGD(model.parameters(), lr=lr))(0.1), model=model)


def test_a_deleted_option_is_refused():
    """What no option tells cannot be done again, and is not passed over."""
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    del optimizer.param_groups[0]["dampening"]
    with pytest.raises(ValidationError, match="'dampening' was deleted from group 0"):
        evaluator_of(optimizer)


def test_a_removed_group_is_refused():
    """The same for a whole group."""
    model = net()
    optimizer = trace(SGD)([{"params": [p]} for p in model.parameters()], lr=0.1)
    optimizer.param_groups.pop()
    with pytest.raises(ValidationError, match="parameter groups of this SGD were removed"):
        evaluator_of(optimizer, model=model)


def test_changed_defaults_are_refused():
    """Defaults that differ from what the constructor was told cannot be recorded."""
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    optimizer.defaults["momentum"] = 0.9
    with pytest.raises(ValidationError, match="the default 'momentum' of this SGD was changed"):
        evaluator_of(optimizer)


def test_a_scheduler_may_be_passed_beside_the_one_that_holds_it():
    """A part that is also passed by itself is one object, in either order."""
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    part = trace(lrs.ConstantLR)(optimizer)
    chain = trace(lrs.ChainedScheduler)([part])
    for order in ([part, chain], [chain, part]):
        with rebind.bind(evaluator_of(optimizer, order), net()) as binding:
            built = binding.lr_schedulers
            assert built[order.index(chain)]._schedulers[0] is built[order.index(part)]


def test_an_averaged_model_is_built_from_the_new_model():
    """AveragedModel takes the model, and stands among the schedulers."""
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    evaluator = evaluator_of(optimizer, [trace(AveragedModel)(model)])
    other = net(5, 1)
    with rebind.bind(evaluator, other) as binding:
        averaged = binding.lr_schedulers[0]
    assert torch.equal(averaged.module[0].weight, other[0].weight)
    assert averaged.module is not other
    assert_reinitialises_exactly(evaluator, net(5, 1))


def test_a_change_made_before_training_survives_it():
    """The recorded rate is the one that the schedulers started from, however far they have gone since."""
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.4
    scheduler = trace(lrs.StepLR)(optimizer, 1)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    again = optimizer_on(evaluator_of(optimizer, scheduler), net())
    assert again.param_groups[0]["lr"] == 0.4


def test_a_rate_that_is_changed_during_training_is_refused():
    """After steps nobody can tell when it was changed, so it is not guessed."""
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    scheduler = trace(lrs.StepLR)(optimizer, 1)
    optimizer.step()
    scheduler.step()
    optimizer.param_groups[0]["lr"] = 0.7
    with pytest.raises(ValidationError, match=r"changed to 0.7 after a scheduler had set it to 0.01"):
        evaluator_of(optimizer, scheduler)


def test_other_options_that_are_changed_during_training_count():
    """Momentum that no scheduler cycles is the caller's own."""
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = trace(lrs.StepLR)(optimizer, 1)
    optimizer.step()
    scheduler.step()
    optimizer.param_groups[0]["momentum"] = 0.5
    again = optimizer_on(evaluator_of(optimizer, scheduler), net())
    assert (again.param_groups[0]["lr"], again.param_groups[0]["momentum"]) == (0.1, 0.5)


def test_a_copied_argument_is_equal_to_the_original():
    """The record holds a copy of an object with state, and the caller's own object is untouched."""
    counter = Counter()
    model = net()
    optimizer = trace(SGD)(model.parameters(), lr=0.1)
    scheduler = trace(lrs.LambdaLR)(optimizer, counter)
    assert scheduler.lr_lambdas[0] is counter
    assert copy.copy(construction_of(scheduler).args[1]).calls == 0
