"""Properties of evaluators that hold for whatever rebind.testing draws."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rebind
from rebind.testing import (
    assert_pristine,
    assert_reinitialises_exactly,
    evaluators,
    lr_schedulers,
    models,
    optimizers,
    renames,
)
from rebind.testing.curves import curve_of, explain_curves
from rebind.testing.direct import construct_directly
from rebind.testing.loops import train

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
quick = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@quick
@given(st.data())
def test_an_evaluator_gives_another_model_what_direct_construction_gives_it(data):
    """For every model, evaluator of it, and model of other widths: binding equals direct construction."""
    model = data.draw(models())
    evaluator = data.draw(evaluators(model))
    width, seed = data.draw(st.integers(1, 6)), data.draw(st.integers(10, 19))
    assert_reinitialises_exactly(evaluator, model.similar(width, seed))


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(quick, max_examples=1500)
@given(st.data())
def test_many_evaluators_give_another_model_what_direct_construction_gives_it(data):
    """The same, for many more of them, and after a round trip through bytes."""
    model = data.draw(models())
    evaluator = data.draw(evaluators(model))
    if data.draw(st.booleans()):
        evaluator = rebind.loads(rebind.dumps(evaluator), trusted=True)
    assert_reinitialises_exactly(evaluator, model.similar(data.draw(st.integers(1, 6)), 11))


@quick
@given(st.data())
def test_whatever_is_drawn_trains_and_leaves_the_model_as_it_was(data):
    """Nothing is drawn that torch takes at first and refuses as it steps."""
    train_what_is_drawn(data)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(quick, max_examples=1500)
@given(st.data())
def test_whatever_is_drawn_trains_many_times(data):
    """The same, for many more of them."""
    train_what_is_drawn(data)


def train_what_is_drawn(data):
    model = data.draw(models())
    evaluator = data.draw(evaluators(model))
    with assert_pristine(model), rebind.bind(evaluator, model) as binding:
        binding.train(max_steps=12)
        assert binding.steps == 12


@quick
@given(st.data())
def test_an_evaluator_comes_back_from_bytes_as_an_equal_one(data):
    """loads(dumps(e)) == e, and both do the same to a model."""
    model = data.draw(models())
    evaluator = data.draw(evaluators(model))
    again = rebind.loads(rebind.dumps(evaluator), trusted=True)
    assert rebind.diff(again, evaluator) == []
    assert again == evaluator
    assert_reinitialises_exactly(again, model.similar(3, 5))


@quick
@given(st.data())
def test_the_order_and_number_of_bindings_does_not_matter(data):
    """A second binding, after a first one was trained, gives what the first one gave."""
    model = data.draw(models())
    evaluator = data.draw(evaluators(model))
    curves = []
    for _ in range(2):
        target = model.similar(4, 7)
        with rebind.bind(evaluator, target) as binding:
            curves.append(curve_of(target, binding.optimizers, binding.lr_schedulers, 6))
    assert explain_curves(*curves) == ""


@quick
@given(st.data())
def test_a_model_is_pristine_after_its_binding(data):
    """Whatever is trained, only the values of weights and buffers differ afterwards."""
    model = data.draw(models())
    evaluator = data.draw(evaluators(model))
    target = model.similar()
    with assert_pristine(target), rebind.bind(evaluator, target) as binding:
        binding.train(max_steps=data.draw(st.integers(0, 3)))
        binding.evaluate()


@quick
@given(st.data())
def test_renamed_parameters_are_trained_as_the_recorded_ones(data):
    """With the names that `renames` gives, a renamed model ends up with the very weights of the other."""
    model = data.draw(models())
    optimizer = data.draw(optimizers(model))
    evaluator = rebind.TorchEvaluator(train, optimizer, criterion, model=model)
    names, renamed = data.draw(renames(model))
    plain, other = model.similar(3, 1), model.similar(3, 1, names)
    with rebind.bind(evaluator, plain) as one, rebind.bind(evaluator, other, rename=renamed.get) as two:
        groups = [[tuple(p.shape) for p in g["params"]] for g in one.optimizers[0].param_groups]
        assert groups == [[tuple(p.shape) for p in g["params"]] for g in two.optimizers[0].param_groups]
        back = {id(p): name for name, p in other.named_parameters()}
        told = {id(p): renamed.get(name, name) for name, p in plain.named_parameters()}
        for group, twin in zip(one.optimizers[0].param_groups, two.optimizers[0].param_groups, strict=True):
            assert [told[id(p)] for p in group["params"]] == [back[id(p)] for p in twin["params"]]


@quick
@given(st.data())
def test_recording_does_not_change_what_is_recorded(data):
    """Neither creating an evaluator nor writing it changes the live objects or the model."""
    model = data.draw(models())
    optimizer = data.draw(optimizers(model))
    scheduler = data.draw(lr_schedulers(optimizer))
    before = copy.deepcopy(optimizer.state_dict()), repr(scheduler.state_dict().keys())
    with assert_pristine(model):
        evaluator = rebind.TorchEvaluator(train, optimizer, criterion, scheduler, model=model)
        rebind.dumps(evaluator)
    assert repr(optimizer.state_dict()) == repr(before[0])
    assert repr(scheduler.state_dict().keys()) == before[1]


@quick
@given(st.data())
def test_the_oracle_knows_what_it_is_asked_for(data):
    """Direct construction by hand on the recorded model gives the groups that the user's objects had."""
    model = data.draw(models())
    optimizer = data.draw(optimizers(model))
    evaluator = rebind.TorchEvaluator(train, optimizer, criterion, model=model)
    (again,), schedulers = construct_directly(evaluator, model)
    assert schedulers == []
    assert type(again) is type(optimizer)
    for group, twin in zip(optimizer.param_groups, again.param_groups, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in twin["params"]]
        assert {k: v for k, v in group.items() if k != "params"} == {
            k: v for k, v in twin.items() if k != "params"
        }


def test_a_check_that_fails_says_where():
    """An evaluator that is not reinitialised exactly is told with the path of the first difference."""
    model = torch.nn.Linear(2, 2)
    made = []

    def make(params):
        made.append(1)
        return torch.optim.SGD(params, lr=0.1 * len(made))

    evaluator = rebind.TorchEvaluator(train, rebind.trace(make)(model.parameters()), criterion)
    with pytest.raises(AssertionError, match=r"defaults.*0\.2.* is not"):
        assert_reinitialises_exactly(evaluator, torch.nn.Linear(2, 2))


def criterion(output, target):
    return (output - target).square().mean()


@quick
@given(evaluators())
def test_an_evaluator_outlives_its_model(evaluator):
    """Once created, it needs the model no more: it is written, and keeps all names."""
    again = rebind.loads(rebind.dumps(evaluator), trusted=True)
    assert again.parameter_names() == evaluator.parameter_names()
