"""`binding.rebind`: state that goes on after surgery, sliced where channels went, and nothing half done."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from binding_material import assert_equal_models, data, net, record, run, shipped
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from rebind import BindError, MissingParametersError, TorchEvaluator, bind, trace

KEPT = [5, 0, 2]
KEPT_OF = {
    "fc1.weight": {0: KEPT},
    "fc1.bias": {0: KEPT},
    "bn.weight": {0: KEPT},
    "bn.bias": {0: KEPT},
    "fc2.weight": {1: KEPT},
}


def cut(model):
    """A copy of the model with the hidden channels in KEPT only."""
    new = copy.deepcopy(model)
    own = dict(model.named_parameters())
    for name, dimensions in KEPT_OF.items():
        ((dimension, kept),) = dimensions.items()
        module, _, leaf = name.partition(".")
        values = own[name].detach().index_select(dimension, torch.tensor(kept))
        setattr(getattr(new, module), leaf, nn.Parameter(values.clone()))
    for leaf in ("running_mean", "running_var"):
        getattr(new.bn, leaf).data = getattr(model.bn, leaf)[KEPT].clone()
    new.bn.num_features = new.fc1.out_features = new.fc2.in_features = len(KEPT)
    return new


def fit(model, optimizers, criterion, lr_schedulers=None, max_steps=10):
    """10 steps of any optimizer, closures included."""
    for x, y in data(max_steps):

        def closure(x=x, y=y):
            optimizers.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            return loss

        optimizers.step(closure)
        if lr_schedulers is not None:
            lr_schedulers.step()


OPTIMIZERS = {
    "SGD": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "SGD without momentum": (torch.optim.SGD, {"lr": 0.01}),
    "Adam": (torch.optim.Adam, {"amsgrad": True}),
    "AdamW": (torch.optim.AdamW, {"lr": torch.tensor(0.001), "foreach": False}),
    "Adamax": (torch.optim.Adamax, {}),
    "NAdam": (torch.optim.NAdam, {}),
    "RAdam": (torch.optim.RAdam, {}),
    "Adagrad": (torch.optim.Adagrad, {"initial_accumulator_value": 0.1}),
    "Adadelta": (torch.optim.Adadelta, {}),
    "Adafactor": (torch.optim.Adafactor, {}),
    "RMSprop": (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
    "Rprop": (torch.optim.Rprop, {}),
    "ASGD": (torch.optim.ASGD, {"t0": 2}),
}


def evaluator_of(kind, options, model, *, schedule=True):
    optimizer = trace(kind)(model.parameters(), **copy.deepcopy(options))
    scheduler = trace(torch.optim.lr_scheduler.StepLR)(optimizer, 4, 0.5) if schedule else None
    return TorchEvaluator(fit, optimizer, nn.functional.mse_loss, scheduler)


def slice_by_hand(name, state):
    """The oracle: Adafactor's factors have size 1 where they were averaged; the rest has its shape."""
    ((dimension, kept),) = KEPT_OF.get(name, {0: None}).items()
    if kept is None:
        return copy.deepcopy(state)
    return {
        key: value[:, kept]
        if torch.is_tensor(value) and value.dim() == 2 and dimension == 1 and value.shape[1] > 1
        else value[kept]
        if torch.is_tensor(value) and value.dim() and dimension == 0 and value.shape[0] > 1
        else copy.deepcopy(value)
        for key, value in state.items()
    }


@pytest.mark.parametrize("kept", [KEPT_OF, None], ids=["told", "proven by the values"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_kept_channels_goes_on_exactly(name, kept):
    """State equals slicing by hand, and so do 5 further steps with the schedule going on."""
    kind, options = OPTIMIZERS[name]
    model, by_hand = net(), net()
    binding = bind(evaluator_of(kind, options, model), model)
    binding.train(max_steps=10)
    optimizer = kind(by_hand.parameters(), **copy.deepcopy(options))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    fit(by_hand, optimizer, nn.functional.mse_loss, scheduler, 10)
    assert_equal_models(model, by_hand)

    small, small_by_hand = cut(model), cut(by_hand)
    names = {id(parameter): name for name, parameter in by_hand.named_parameters()}
    new = kind(small_by_hand.parameters(), **copy.deepcopy(options))
    new_scheduler = torch.optim.lr_scheduler.StepLR(new, 4, 0.5)
    new.param_groups[0].update(
        {k: copy.deepcopy(v) for k, v in optimizer.param_groups[0].items() if k != "params"}
    )
    new_scheduler.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    own = dict(small_by_hand.named_parameters())
    for parameter, state in optimizer.state.items():
        new.state[own[names[id(parameter)]]] = slice_by_hand(names[id(parameter)], state)

    assert binding.rebind(small, state="slice", kept=kept) is binding
    if name != "SGD without momentum":
        assert set(binding.report.sliced) == set(KEPT_OF)
        assert binding.report.carried == ("fc2.bias",)
    binding.train(max_steps=5)
    fit(small_by_hand, new, nn.functional.mse_loss, new_scheduler, 5)
    assert_equal_models(small, small_by_hand)
    assert binding.lr_schedulers[0].get_last_lr() == new_scheduler.get_last_lr()


@pytest.mark.parametrize("name", [*OPTIMIZERS, "LBFGS"])
@pytest.mark.parametrize(
    "surgery", [copy.deepcopy, nn.DataParallel, lambda m: m], ids=["copy", "wrap", "same"]
)
def test_carrying_everything_is_as_if_nothing_had_happened(name, surgery):
    """Train 6, rebind with state="carry", train 6 equals training 6 and 6 with the same optimizer."""
    kind, options = OPTIMIZERS.get(name, (torch.optim.LBFGS, {"lr": 0.1, "max_iter": 3}))
    model, oracle = net(), net()
    binding = bind(evaluator_of(kind, options, model), model)
    binding.train(max_steps=6)
    after = surgery(model)
    binding.rebind(after, state="carry")
    binding.train(max_steps=6)
    optimizer = kind(oracle.parameters(), **copy.deepcopy(options))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    for _ in range(2):
        fit(oracle, optimizer, nn.functional.mse_loss, scheduler, 6)
    assert_equal_models(getattr(after, "module", after), oracle)


def sparse_fit(model, optimizers, criterion):
    for index in ([0, 1], [1, 2], [3, 3]):
        optimizers.zero_grad()
        model(torch.tensor(index)).pow(2).sum().backward()
        optimizers.step()


def test_sparse_adam_loses_the_rows_that_an_embedding_lost():
    """SparseAdam's dense moments are sliced by rows, and its step count is a plain number."""
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = trace(torch.optim.SparseAdam)(model.parameters())
    binding = bind(TorchEvaluator(sparse_fit, optimizer, nn.functional.mse_loss), model)
    binding.train()
    before = copy.deepcopy(dict(binding.optimizers[0].state[model.weight]))
    small = nn.Embedding(4, 3, sparse=True)
    small.weight = nn.Parameter(model.weight.detach()[:4].clone())
    binding.rebind(small, state="slice")
    after = binding.optimizers[0].state[small.weight]
    assert after["step"] == before["step"] == 3
    assert torch.equal(after["exp_avg"], before["exp_avg"][:4])
    binding.train()


def test_muon_loses_the_rows_and_columns_that_a_matrix_lost():
    """A matrix that lost both rows and columns is recognised by its values, and its momentum follows."""
    model = nn.Linear(6, 5, bias=False)
    optimizer = trace(torch.optim.Muon)(model.parameters(), lr=0.01)
    binding = bind(TorchEvaluator(linear_fit, optimizer, nn.functional.mse_loss), model)
    binding.train()
    momentum = binding.optimizers[0].state[model.weight]["momentum_buffer"].clone()
    rows, columns = [4, 0, 1], [5, 2]
    small = nn.Linear(2, 3, bias=False)
    small.weight = nn.Parameter(model.weight.detach()[rows][:, columns].clone())
    binding.rebind(small, state="slice")
    assert torch.equal(
        binding.optimizers[0].state[small.weight]["momentum_buffer"], momentum[rows][:, columns]
    )


def linear_fit(model, optimizers, criterion):
    for _ in range(3):
        optimizers.zero_grad()
        model(torch.randn(4, model.in_features)).pow(2).sum().backward()
        optimizers.step()


def test_lbfgs_refuses_what_its_one_history_cannot_follow():
    """A flat history over all parameters has no exact slice; the message says to start anew."""
    model = net()
    binding = bind(evaluator_of(torch.optim.LBFGS, {"max_iter": 2}, model, schedule=False), model)
    binding.train(max_steps=2)
    for state in ("carry", "slice"):
        with pytest.raises(BindError, match="LBFGS keeps one history"):
            binding.rebind(cut(model), state=state)
    binding.rebind(cut(model))
    binding.train(max_steps=1)


def trained(steps=6):
    model = net()
    binding = bind(record(model), model)
    binding.train(max_steps=steps)
    return model, binding


def test_carry_lets_parameters_of_another_shape_start_anew():
    """Unchanged parameters keep their momentum, the others have none, and the report tells which."""
    model, binding = trained()
    momentum = binding.optimizers[0].state[model.fc2.bias]["momentum_buffer"]
    small = cut(model)
    binding.rebind(small, state="carry")
    state = binding.optimizers[0].state
    assert list(state) == [small.fc2.bias]
    assert torch.equal(state[small.fc2.bias]["momentum_buffer"], momentum)
    assert state[small.fc2.bias]["momentum_buffer"] is not momentum
    assert binding.report.carried == ("fc2.bias",)


def test_fresh_starts_anew():
    """By default a rebind is what a new binding would be."""
    model, binding = trained()
    binding.rebind(cut(model))
    assert binding.optimizers[0].state == {}
    assert binding.optimizers[0].param_groups[0]["lr"] == 0.05
    assert binding.lr_schedulers[0].last_epoch == 0


def test_groups_and_schedules_go_on_as_the_caller_left_them():
    """Options that were changed by hand or by a schedule are carried; nothing is shared with the old ones."""
    model, binding = trained()
    binding.optimizers[0].param_groups[0]["weight_decay"] = 0.5
    binding.rebind(copy.deepcopy(model), state="carry")
    group = binding.optimizers[0].param_groups[0]
    assert (group["weight_decay"], group["lr"], group["initial_lr"]) == (0.5, 0.05 * 0.25, 0.05)
    assert binding.lr_schedulers[0].last_epoch == 6


def schedulers(optimizer):
    lr = torch.optim.lr_scheduler
    yield trace(lr.LambdaLR)(optimizer, lambda epoch: 1 / (epoch + 1))
    yield trace(lr.OneCycleLR)(optimizer, 0.1, total_steps=30)
    yield trace(lr.CyclicLR)(optimizer, 0.01, 0.1, step_size_up=3)
    yield trace(lr.CosineAnnealingWarmRestarts)(optimizer, 4)
    yield trace(torch.optim.swa_utils.SWALR)(optimizer, 0.01)
    first = trace(lr.ConstantLR)(optimizer, 0.5, 3)
    yield trace(lr.SequentialLR)(optimizer, [first, trace(lr.ExponentialLR)(optimizer, 0.9)], [4])
    inner = [trace(lr.LinearLR)(optimizer), trace(lr.StepLR)(optimizer, 3)]
    yield trace(lr.ChainedScheduler)(inner)


@pytest.mark.parametrize("index", range(7))
def test_every_kind_of_schedule_goes_on(index):
    """The learning rates and weights after a rebind are those of a run without one."""

    def make():
        model = net()
        optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = [s for i, s in enumerate(schedulers(optimizer)) if i == index][0]  # noqa: RUF015 - all run
        return model, optimizer, scheduler

    model, optimizer, scheduler = make()
    binding = bind(TorchEvaluator(fit, optimizer, nn.functional.mse_loss, scheduler), model)
    oracle = net()
    straight = bind(binding.evaluator, oracle)
    binding.train(max_steps=5)
    model = copy.deepcopy(model)
    binding.rebind(model, state="carry")
    binding.train(max_steps=5)
    for _ in range(2):
        straight.train(max_steps=5)
    assert binding.optimizers[0].param_groups[0]["lr"] == straight.optimizers[0].param_groups[0]["lr"]
    assert_equal_models(model, oracle)


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        ({"fc1.wieght": {0: KEPT}}, "there is no parameter 'fc1.wieght', did you mean 'fc1.weight'?"),
        ({"fc1.weight": {2: KEPT}}, "has no dimension 2"),
        ({"fc1.weight": {0: [0, 1, 6]}}, "numbers from 0 to 5"),
        ({"fc1.weight": {0: [-1, 1, 2]}}, "numbers from 0 to 5"),
        ({"fc1.weight": {0: torch.ones(7, dtype=torch.bool)}}, "numbers from 0 to 5"),
        ({"fc1.weight": {0: [0, 1]}}, "had shape (6, 4), what is kept of it has (2, 4)"),
        ({"fc1.weight": {1: [0, 1, 2]}}, "every dimension that changed"),
    ],
)
def test_kept_indices_that_do_not_fit_are_refused_and_the_binding_goes_on(kept, text):
    """Each mistake has its message; the old binding trains on as if nothing had been asked."""
    model, binding = trained()
    oracle, straight = trained()
    small = cut(model)
    with pytest.raises(BindError) as caught:
        binding.rebind(small, state="slice", kept=kept)
    assert text in str(caught.value)
    assert binding.model is model
    binding.train(max_steps=4)
    straight.train(max_steps=4)
    assert_equal_models(model, oracle)


def test_kept_indices_may_be_masks_tensors_and_negative_dimensions():
    """Whatever tells the channels is understood."""
    model, binding = trained()
    expected = binding.optimizers[0].state[model.fc1.weight]["momentum_buffer"][[0, 2, 5]]
    mask = torch.tensor([True, False, True, False, False, True])
    small = nn.Module()
    small.__dict__.update(copy.deepcopy(model).__dict__)
    small.fc1 = nn.Linear(4, 3)  # its values prove nothing
    binding._missing = "ignore"
    binding.rebind(
        small, state="slice", kept={"fc1.weight": {-2: mask}, "fc1.bias": {0: torch.tensor([0, 2, 5])}}
    )
    assert torch.equal(binding.optimizers[0].state[small.fc1.weight]["momentum_buffer"], expected)


def test_what_the_values_do_not_prove_must_be_told():
    """Values that were changed, that are ambiguous, or gone: no guess, but a request for `kept`."""
    model, binding = trained()
    changed = cut(model)
    with torch.no_grad():
        changed.fc1.weight += 1
    twins = net()
    with torch.no_grad():
        twins.fc1.weight[1] = twins.fc1.weight[0]
    twin_binding = bind(record(twins), twins)
    twin_binding.train(max_steps=1)
    with torch.no_grad():
        twins.fc1.weight[0] = twins.fc1.weight[5]
    for bound, small in ((binding, changed), (twin_binding, cut(twins))):
        with pytest.raises(BindError, match=r"pass kept=\{'fc1.weight'"):
            bound.rebind(small, state="slice")
    in_place = dict(model.named_parameters())
    for name, dimensions in KEPT_OF.items():
        ((dimension, kept),) = dimensions.items()
        in_place[name].grad = None
        in_place[name].data = in_place[name].data.index_select(dimension, torch.tensor(kept))
    with pytest.raises(BindError, match="cut in place"):
        binding.rebind(model, state="slice")
    momentum = binding.optimizers[0].state[model.fc1.weight]["momentum_buffer"]
    binding.rebind(model, state="slice", kept=KEPT_OF)
    assert torch.equal(binding.optimizers[0].state[model.fc1.weight]["momentum_buffer"], momentum[KEPT])


def test_channels_alike_in_value_and_state_may_stand_for_each_other():
    """A fresh batch norm is all ones: before its first step it has no state, so nothing is asked."""
    model = net()
    binding = bind(record(model), model)
    binding.rebind(cut(model), state="slice")
    binding.train(max_steps=2)


@pytest.mark.parametrize("how", ["values", "recorded"])
def test_momentum_survives_torch_pruning(how):
    """After a real pruning in place, each momentum is that of the channels that are left."""
    pruning = pytest.importorskip("torch_pruning")
    from rebind.runtime.integrations.torch_pruning import recording_kept

    model = net()
    binding = bind(record(model), model)
    binding.train(max_steps=6)
    old = dict(model.named_parameters())
    momenta = {n: binding.optimizers[0].state[p]["momentum_buffer"].clone() for n, p in old.items()}
    with recording_kept(model) as kept:
        pruner = pruning.pruner.MagnitudePruner(
            model,
            torch.ones(2, 4),
            pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=0.6,
            iterative_steps=2,
            ignored_layers=[model.fc2],
        )
        pruner.step()
        pruner.step()
    assert model.fc1.out_features < 5
    binding.rebind(model, state="slice", kept=kept if how == "recorded" else None)
    rows = [(old["fc1.weight"] == row).all(1).nonzero().item() for row in model.fc1.weight]
    for name, parameter in model.named_parameters():
        momentum = momenta[name]
        if name in KEPT_OF:
            momentum = momentum[:, rows] if name == "fc2.weight" else momentum[rows]
        assert torch.equal(binding.optimizers[0].state[parameter]["momentum_buffer"], momentum)
    binding.train(max_steps=3)


class Twice(nn.Module):
    """Has one weight in two layers, of which torch-pruning prunes different channels."""

    def __init__(self):
        super().__init__()
        self.enter, self.one, self.two = nn.Linear(4, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.two.weight = self.one.weight
        self.leave = nn.Linear(12, 2)

    def forward(self, x):
        for layer in (self.enter, self.one, self.two):
            x = layer(x).relu()
        return self.leave(x)


def test_halves_that_torch_pruning_unties_keep_each_its_own_channels_of_the_momentum():
    """Also in a second round, when they have been two for long; found again by the values of the weight."""
    pruning = pytest.importorskip("torch_pruning")
    from rebind.runtime.integrations.torch_pruning import recording_kept

    torch.manual_seed(0)
    model = Twice()
    binding = bind(record(model), model)
    binding.train(max_steps=3)

    def prune_by_half():
        old = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        state = binding.optimizers[0].state
        momenta = {name: state[p]["momentum_buffer"].clone() for name, p in model.named_parameters()}
        for held in (old, momenta):
            held.setdefault("two.weight", held["one.weight"])
        importance = pruning.importance.MagnitudeImportance()
        with recording_kept(model) as kept:
            options = {"pruning_ratio": 0.5, "ignored_layers": [model.leave]}
            pruning.pruner.BasePruner(model, torch.ones(2, 4), importance, **options).step()
        return old, momenta, kept

    for width in (6, 3):
        old, momenta, kept = prune_by_half()
        assert kept["one.weight"] != kept["two.weight"]
        binding.rebind(model, state="slice", kept=kept)
        for name, parameter in model.named_parameters():
            now = binding.optimizers[0].state[parameter]["momentum_buffer"]
            for value, left in ((old[name], parameter), (momenta[name], now)):
                for dimension, indices in kept.get(name, {}).items():
                    value = value.index_select(dimension, torch.tensor(indices))
                assert torch.equal(value, left), name
        assert model.one.weight.shape == model.two.weight.shape == (width, width)
        binding.train(max_steps=2)


def test_untied_halves_go_on_with_the_state_of_the_tied_weight():
    """Each half continues the weight that it was; halves that were merged start anew."""
    tied, untied = tied_net(tied=True), tied_net(tied=False)
    optimizer = trace(torch.optim.SGD)(tied.parameters(), lr=0.1, momentum=0.9)
    evaluator = TorchEvaluator(linear_fit, optimizer, nn.functional.mse_loss, model=tied)
    tied.in_features = untied.in_features = 4
    binding = bind(evaluator, tied)
    binding.train()
    momentum = binding.optimizers[0].state[tied.a.weight]["momentum_buffer"].clone()
    binding.rebind(untied, state="carry")
    state = binding.optimizers[0].state
    assert torch.equal(state[untied.a.weight]["momentum_buffer"], momentum)
    assert torch.equal(state[untied.b.weight]["momentum_buffer"], momentum)
    binding.rebind(tied, state="carry")
    assert binding.optimizers[0].state == {}


class TiedNet(nn.Sequential):
    @property
    def a(self):
        return self[0]

    @property
    def b(self):
        return self[1]


def tied_net(*, tied):
    model = TiedNet(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    if tied:
        model[1].weight = model[0].weight
    return model


def test_a_weight_that_became_something_else_starts_anew():
    """weight_norm's direction has the shape of the weight, and is not the weight."""
    model, binding = trained()
    normed = copy.deepcopy(model)
    nn.utils.parametrizations.weight_norm(normed.fc1)
    binding.rebind(normed, state="carry")
    assert "fc1.parametrizations.weight.original1" not in binding.report.carried
    assert "fc1.bias" in binding.report.carried


def test_surgery_in_the_bound_model_keeps_its_hooks_and_the_modes_from_before():
    """Hooks that came with the surgery belong to the model then; training modes are those from before."""
    model = net().eval()
    with bind(record(model), model) as binding:
        model.train()
        binding.train(max_steps=2)
        prune.l1_unstructured(model.fc1, "weight", 0.5)
        binding.rebind(model, state="carry")
        assert len(model.fc1._forward_pre_hooks) == 1
        assert binding.optimizers[0].state[model.fc1.weight_orig]["momentum_buffer"] is not None
        binding.train(max_steps=2)
    assert len(model.fc1._forward_pre_hooks) == 1
    assert not any(module.training for module in model.modules())


def test_the_model_left_behind_is_given_back():
    """The old model is as it was before it was bound, the new one when the binding is closed."""
    old, new = net().eval(), net(1).eval()
    with bind(record(old), old) as binding:
        old.train()
        old.fc1.requires_grad_(False)
        old.register_forward_hook(lambda *_: None)
        binding.rebind(new)
        assert not old.training
        assert old.fc1.weight.requires_grad
        assert not old._forward_hooks
        new.train()
        assert binding.model is new
    assert not new.training


@pytest.mark.parametrize(
    "fail",
    [
        lambda b, m: b.rebind(nn.Linear(2, 2)),
        lambda b, m: b.rebind(m, rename={"nothing": "x"}),
        lambda b, m: b.rebind(m, state="sliced"),
        lambda b, m: b.rebind(m, kept={}),
        lambda b, m: b.rebind("model"),
        lambda b, m: b.rebind(cut(m).requires_grad_(False), state="slice", kept={"fc2.weight": {0: [0]}}),
    ],
)
def test_a_failed_rebind_leaves_the_old_binding_working(fail):
    """Same optimizers, same model, and the same weights later as if it had not been tried."""
    model, binding = trained()
    oracle, straight = trained()
    optimizers = binding.optimizers
    with pytest.raises((BindError, MissingParametersError)):
        fail(binding, model)
    assert binding.optimizers == optimizers
    assert binding.model is model
    binding.train(max_steps=3)
    straight.train(max_steps=3)
    assert_equal_models(model, oracle)


def hooking(params, model):
    """A factory that fails after it has touched the model."""
    model.fc1.register_forward_hook(lambda *_: None)
    model.fc1.train(not model.fc1.training)
    if model.fc1.out_features == 3:
        raise RuntimeError("no such size")
    return torch.optim.SGD(params, lr=0.1)


def test_a_failed_bind_leaves_nothing_behind():
    """What a construction did to the model before another one failed is undone; the cause is told."""
    model = net()
    optimizer = trace(hooking)(model.parameters(), model)
    evaluator = shipped(TorchEvaluator(fit, optimizer, nn.functional.mse_loss, model=model))
    small = cut(net())
    with pytest.raises(BindError, match="no such size") as caught:
        bind(evaluator, small)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not small.fc1._forward_hooks
    assert small.fc1.training


@pytest.mark.parametrize("state", ["carry", "slice"])
def test_a_first_bind_has_no_state_to_carry(state):
    """There are no earlier optimizers; the message says how to get there."""
    with pytest.raises(BindError, match=r"binding\.rebind\(model, state="):
        bind(record(net()), net(), state=state)


def test_a_closed_binding_is_not_rebound():
    """After `close` nothing starts again."""
    model, binding = trained()
    binding.close()
    with pytest.raises(BindError, match="closed"):
        binding.rebind(model)


def test_names_under_which_a_model_was_bound_hold_after_surgery():
    """Neither a rename nor identity has to be told again when the parameters are new objects."""
    outer = nn.Sequential(net())
    for evaluator, rename in ((shipped(record(net())), [(r"^", "0.")]), (record(outer[0]), None)):
        with bind(evaluator, outer, rename=rename) as binding:
            binding.train(max_steps=2)
            after = nn.Sequential(cut(outer[0]))
            binding.rebind(after, state="slice")
            assert binding.report.renamed["fc1.weight"] == "0.fc1.weight"
            binding.train(max_steps=2)


def test_parametrized_weights_keep_their_state():
    """The recorded parameter is the same object under another name."""

    class Scaled(nn.Module):
        def forward(self, x):
            return x * math.sqrt(2)

    model, binding = trained()
    parametrize.register_parametrization(model.fc1, "weight", Scaled())
    binding.rebind(model, state="carry")
    assert len(binding.report.carried) == 6
    run(model, binding.optimizers, [], nn.functional.mse_loss, 2)


def momentum_of(binding):
    state = binding.optimizers[0].state
    return {name: state[p]["momentum_buffer"].clone() for name, p in binding.model.named_parameters()}


def two_layers(hidden=4, norm=lambda layer: layer):
    return nn.Sequential(norm(nn.Linear(4, hidden, bias=False)), nn.Linear(hidden, 4, bias=False))


def with_momentum(model):
    def train(model, optimizers, criterion, max_steps=None):
        inputs = torch.ones(4, 4)
        for _ in range(max_steps):
            optimizers.zero_grad()
            criterion(model(inputs), torch.zeros(4, 4)).backward()
            optimizers.step()

    optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)
    return TorchEvaluator(train, optimizer, nn.functional.mse_loss, model=model)


def test_a_parameter_that_slid_into_the_place_of_another_one_keeps_its_own_state():
    """A layer was taken out: the one behind it now has its name, and is not taken for it."""
    model = two_layers()
    with bind(with_momentum(model), model, missing="ignore") as binding:
        binding.train(max_steps=2)
        first = momentum_of(binding)["0.weight"]
        del model[0]
        binding.rebind(nn.Sequential(nn.Linear(4, 4, bias=False)), state="carry")
        assert torch.equal(momentum_of(binding)["0.weight"], first)
        assert binding.report.missing == ("1.weight",)


def test_what_was_kept_of_split_weights_may_be_told_by_their_names_before_surgery():
    """The names of the model that was pruned, which is bound inside a wrapper after that."""
    plain, old = two_layers(6), two_layers(6, parametrizations.weight_norm)
    indices = [5, 1, 2]
    with bind(with_momentum(plain), old) as binding:
        binding.train(max_steps=2)
        before = momentum_of(binding)
        kept = {name: {p.shape.index(6): indices} for name, p in old.named_parameters()}
        new = nn.DataParallel(two_layers(3, parametrizations.weight_norm))
        binding.rebind(new, state="slice", kept=kept)
        after = momentum_of(binding)
    assert len(before) == 3
    for name, momentum in before.items():
        expected = momentum.index_select(momentum.shape.index(6), torch.tensor(indices))
        assert torch.equal(after[f"module.{name}"], expected)
