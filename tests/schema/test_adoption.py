"""Untraced optimizers and schedulers: adopted exactly, or refused."""

# ruff: noqa: FURB171 - room for more
# ruff: noqa: PLR0917 - the guide's signatures are contracts

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from pydantic import ValidationError
from torch import optim
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

import rebind
from rebind import TorchEvaluator, bind, trace


class Net(torch.nn.Module):
    """Weights of two dimensions only, so that Muon takes it, too."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, width, bias=False)
        self.second = torch.nn.Linear(width, 1, bias=False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def train(model, optimizers, criterion, lr_schedulers=None): ...


def net(width=4, seed=0):
    torch.manual_seed(seed)
    return Net(width)


def two_groups(model, **options):
    return [{"params": [model.first.weight], **options}, {"params": [model.second.weight]}]


def steps(model, optimizers, schedulers, count):
    """Train, and return what happened: learning rates and momenta of each step, and the weights."""
    curve = []
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(8, 3, generator=generator)

        def closure(x=x):
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = (model(x) - 1).square().mean()
            loss.backward()
            if isinstance(optimizers[0], optim.SparseAdam):
                for parameter in model.parameters():
                    parameter.grad = parameter.grad.to_sparse()
            return loss

        closure()
        for optimizer in optimizers:
            optimizer.step(closure) if isinstance(optimizer, optim.LBFGS) else optimizer.step()
        for scheduler in schedulers:
            scheduler.step(1.0) if isinstance(scheduler, lrs.ReduceLROnPlateau) else scheduler.step()
        curve.append(
            [
                {key: copy.deepcopy(group[key]) for key in ("lr", "momentum", "betas") if key in group}
                for optimizer in optimizers
                for group in optimizer.param_groups
            ]
        )
    return curve, [parameter.detach().clone() for parameter in model.parameters()]


def assert_same_training(
    optimizers, schedulers, model, oracle_optimizers, oracle_schedulers, oracle, count=12
):
    for mine, other in zip(optimizers, oracle_optimizers, strict=True):
        assert type(mine) is type(other)
        for group, expected in zip(mine.param_groups, other.param_groups, strict=True):
            assert [p.shape for p in group["params"]] == [p.shape for p in expected["params"]]
            options = {k: v for k, v in group.items() if k != "params"}
            assert str(options) == str({k: v for k, v in expected.items() if k != "params"})
    curve, weights = steps(model, optimizers, schedulers, count)
    expected_curve, expected_weights = steps(oracle, oracle_optimizers, oracle_schedulers, count)
    assert curve == expected_curve
    for weight, expected in zip(weights, expected_weights, strict=True):
        assert torch.equal(weight, expected)


def check_exact(
    make, *, wide=7, warm=5, change=lambda optimizers, schedulers, model: (optimizers, schedulers)
):
    """Whatever `make` builds, adopted after `warm` steps, trains a new model as `make` does there."""
    model = net()
    optimizers, schedulers = make(model)
    steps(model, optimizers, schedulers, warm)
    optimizers, schedulers = change(optimizers, schedulers, model)
    evaluator = TorchEvaluator(
        train, optimizers, torch.nn.functional.mse_loss, schedulers or None, model=model
    )
    evaluator = rebind.loads(rebind.dumps(evaluator), trusted=True)
    fresh, oracle = net(wide, seed=3), net(wide, seed=3)
    with bind(evaluator, fresh) as binding:
        assert_same_training(binding.optimizers, binding.lr_schedulers or [], fresh, *make(oracle), oracle)


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "sgd_defaults": lambda p: optim.SGD(p),
    "adam": lambda p: optim.Adam(p, lr=0.01, betas=(0.8, 0.99), amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.2),
    "adadelta": lambda p: optim.Adadelta(p, rho=0.8),
    "adafactor": lambda p: optim.Adafactor(p, eps=(1e-9, 1e-3), d=1.5),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.3),
    "adamax": lambda p: optim.Adamax(p, betas=(0.8, 0.9)),
    "asgd": lambda p: optim.ASGD(p, lambd=1e-3, t0=3),
    "muon": lambda p: optim.Muon(p, lr=0.02, ns_steps=3),
    "nadam": lambda p: optim.NAdam(p, decoupled_weight_decay=True, weight_decay=0.1),
    "radam": lambda p: optim.RAdam(p, lr=0.02),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.02, momentum=0.5, centered=True),
    "rprop": lambda p: optim.Rprop(p, etas=(0.4, 1.3)),
    "sparse_adam": lambda p: optim.SparseAdam(p, lr=0.03),
    "lbfgs": lambda p: optim.LBFGS(p, lr=0.3, max_iter=3),
    "tensor_lr": lambda p: optim.SGD(p, lr=torch.tensor(0.1)),
    "tensor_betas": lambda p: optim.AdamW(p, betas=(torch.tensor(0.9), torch.tensor(0.99)), capturable=False),
    "maximize": lambda p: optim.SGD(p, lr=1e-3, maximize=True, foreach=False),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_is_adopted_exactly_after_training(name):
    """An adopted optimizer trains a new model bit for bit as the same constructor call there does."""
    check_exact(lambda model: ([OPTIMIZERS[name](model.parameters())], []))


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("lbfgs",)])
@pytest.mark.parametrize("options", [{"lr": 0.004}, {}])
def test_every_optimizer_with_groups_is_adopted_exactly_after_training(name, options):
    """Options of groups come back, and only those that differ from the optimizer's own."""
    check_exact(lambda model: ([OPTIMIZERS[name](two_groups(model, **options))], []))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_adopted_under_a_scheduler_that_has_decayed_it(name):
    """The learning rate that is recorded is the one that the optimizer began with."""

    def make(model):
        optimizer = OPTIMIZERS[name](model.parameters())
        return [optimizer], [lrs.ExponentialLR(optimizer, 0.7)]

    check_exact(make)


def test_names_that_an_optimizer_knows_are_kept():
    """`named_parameters()` tell the names, so no model has to be given."""
    model = net()
    evaluator = TorchEvaluator(
        train, optim.SGD(model.named_parameters(), lr=0.1), torch.nn.functional.mse_loss
    )
    assert evaluator.parameter_names() == ["first.weight", "second.weight"]
    with bind(evaluator, net(6)) as binding:
        assert binding.optimizers[0].param_groups[0]["param_names"] == ["first.weight", "second.weight"]


def halve(epoch):
    return 0.5**epoch


def tenth(epoch):
    return 1 / (1 + epoch)


SCHEDULERS = {
    "lambda": lambda o: lrs.LambdaLR(o, halve),
    "lambda_closure": lambda o, k=0.3: lrs.LambdaLR(o, lambda epoch: k**epoch),
    "multiplicative": lambda o: lrs.MultiplicativeLR(o, tenth),
    "step": lambda o: lrs.StepLR(o, 2, gamma=0.5),
    "multistep": lambda o: lrs.MultiStepLR(o, [6, 2, 2, 9], gamma=0.5),
    "constant": lambda o: lrs.ConstantLR(o, factor=0.25, total_iters=7),
    "linear": lambda o: lrs.LinearLR(o, start_factor=0.2, total_iters=8),
    "exponential": lambda o: lrs.ExponentialLR(o, 0.8),
    "polynomial": lambda o: lrs.PolynomialLR(o, total_iters=9, power=2.0),
    "cosine": lambda o: lrs.CosineAnnealingLR(o, T_max=4, eta_min=1e-3),
    "restarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 2, T_mult=2),
    "plateau": lambda o: lrs.ReduceLROnPlateau(o, patience=7, factor=0.5),
    "cyclic": lambda o: lrs.CyclicLR(
        o, 0.01, 0.1, step_size_up=3, step_size_down=5, mode="exp_range", gamma=0.9
    ),
    "cyclic_plain": lambda o: lrs.CyclicLR(o, 0.01, 0.1, step_size_up=3, cycle_momentum=False),
    "cyclic_scaled": lambda o: lrs.CyclicLR(
        o, 0.01, 0.1, step_size_up=4, scale_fn=halve, scale_mode="iterations"
    ),
    "swa": lambda o: SWALR(o, 0.03, anneal_epochs=4, anneal_strategy="linear"),
    "sequential": lambda o: lrs.SequentialLR(o, [lrs.ConstantLR(o), lrs.ExponentialLR(o, 0.9)], [3]),
    "chained": lambda o: lrs.ChainedScheduler([lrs.ExponentialLR(o, 0.9), lrs.StepLR(o, 2)], optimizer=o),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("groups", ["one", "two"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_scheduler_that_keeps_its_arguments_is_adopted_exactly(name, groups, optimizer):
    """Untraced optimizer and scheduler, stepped five times, come back as constructed on the new model."""

    def make(model):
        params = model.parameters() if groups == "one" else two_groups(model, lr=0.05)
        built = OPTIMIZERS[optimizer](params)
        return [built], [SCHEDULERS[name](built)]

    check_exact(make)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_untraced_scheduler_on_a_traced_optimizer_is_adopted(name):
    """Only the optimizer is traced."""

    def make(model):
        built = trace(optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)
        return [built], [SCHEDULERS[name](built)]

    check_exact(make)


TRACED_SCHEDULERS = {
    "step": lambda o: trace(lrs.StepLR)(o, 2, gamma=0.5),
    "one_cycle": lambda o: trace(lrs.OneCycleLR)(o, max_lr=0.1, total_steps=40),
    "sequential_of_traced": lambda o: trace(lrs.SequentialLR)(
        o, [trace(lrs.ConstantLR)(o), trace(lrs.ExponentialLR)(o, 0.9)], [3]
    ),
    "sequential_of_untraced": lambda o: trace(lrs.SequentialLR)(
        o, [lrs.ConstantLR(o), lrs.ExponentialLR(o, 0.9)], [3]
    ),
    "sequential_of_both": lambda o: trace(lrs.SequentialLR)(
        o, [trace(lrs.ConstantLR)(o), lrs.ExponentialLR(o, 0.9)], [3]
    ),
    "untraced_of_traced": lambda o: lrs.SequentialLR(
        o, [trace(lrs.ConstantLR)(o), trace(lrs.ExponentialLR)(o, 0.9)], [3]
    ),
    "plateau": lambda o: trace(lrs.ReduceLROnPlateau)(o, patience=2),
}


@pytest.mark.parametrize("name", [name for name in TRACED_SCHEDULERS if name != "plateau"])
@pytest.mark.parametrize("traced", [False, True])
def test_traced_schedulers_and_untraced_ones_mix(name, traced):
    """A traced scheduler may hold untraced ones, and drive an optimizer that is traced or not."""

    def make(model):
        built = (trace(optim.SGD) if traced else optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)
        return [built], [TRACED_SCHEDULERS[name](built)]

    check_exact(make)


@pytest.mark.parametrize("traced", ["nothing", "optimizer", "scheduler", "both"])
def test_a_plateau_that_has_reduced_the_rate_is_never_recorded_as_where_it_began(traced):
    """The oracle is direct construction; where the first rate is gone, creation says so."""

    def make(model):
        sgd = trace(optim.SGD) if traced in ("optimizer", "both") else optim.SGD
        plateau = trace(lrs.ReduceLROnPlateau) if traced in ("scheduler", "both") else lrs.ReduceLROnPlateau
        built = sgd(model.parameters(), lr=0.1)
        return [built], [plateau(built, patience=1)]

    if traced in ("nothing", "scheduler"):
        with pytest.raises(ValidationError, match="may have been reduced since"):
            check_exact(make, warm=8)
    else:
        check_exact(make, warm=8)


def test_one_cycle_whose_arguments_are_gone_is_refused():
    """It keeps the phases that it computed, not what it was told."""
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(
        ValidationError, match=r"lr_schedulers\n.*OneCycleLR was not traced.*trace\(OneCycleLR\)"
    ):
        TorchEvaluator(
            train,
            optimizer,
            torch.nn.functional.mse_loss,
            lrs.OneCycleLR(optimizer, max_lr=1.0, total_steps=9),
            model=model,
        )


def test_an_optimizer_whose_momentum_was_cycled_is_refused_without_its_scheduler():
    """The scheduler wrote over the momentum, and nothing will write it again."""
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    lrs.OneCycleLR(optimizer, max_lr=1.0, total_steps=9)
    other = lrs.StepLR(optimizer, 3)
    with pytest.raises(ValidationError, match="momentum of group 0 was cycled"):
        TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss, other, model=model)


def test_untraced_siblings_whose_order_matters_are_refused():
    """Each of them writes the learning rate as it is built, so the last one wins."""
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    schedulers = [lrs.LinearLR(optimizer), lrs.LambdaLR(optimizer, lambda epoch: 3.0)]
    with pytest.raises(ValidationError, match="depends on the order in which they were built"):
        TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss, schedulers, model=model)


def test_untraced_siblings_whose_order_does_not_matter_are_adopted():
    """Every order leads to the same state."""

    def make(model):
        built = optim.SGD(model.parameters(), lr=0.1)
        return [built], [lrs.ExponentialLR(built, 0.9), lrs.StepLR(built, 2)]

    check_exact(make)


def test_a_copy_of_a_traced_pair_is_adopted():
    """A deep copy has no record, and needs none."""

    def make(model):
        built = trace(optim.AdamW)(model.parameters(), lr=0.02)
        return [built], [trace(lrs.StepLR)(built, 2)]

    def copied(optimizers, schedulers, model):
        memo = {id(parameter): parameter for parameter in model.parameters()}
        return copy.deepcopy((optimizers, schedulers), memo)

    check_exact(make, change=copied)


def test_a_pickled_traced_optimizer_is_adopted():
    """The record stays behind, the optimizer works and is adopted."""
    model = net()
    optimizer = trace(optim.AdamW)(model.named_parameters(), lr=0.02, betas=(0.8, 0.9))
    model_again, again = pickle.loads(pickle.dumps((model, optimizer)))
    assert not rebind.is_traced(again)
    first = TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss)
    second = TorchEvaluator(train, again, torch.nn.functional.mse_loss, model=model_again)
    assert second.optimizers.kwargs == first.optimizers.kwargs == {"lr": 0.02, "betas": (0.8, 0.9)}


class Hiding(optim.SGD):
    """An optimizer that computes with an argument, and forgets it."""

    def __init__(self, params, lr, scale=1.0):
        super().__init__(params, lr=lr * scale)


class Keeping(optim.SGD):
    """An optimizer that keeps its own argument."""

    def __init__(self, params, lr, scale=1.0):
        super().__init__(params, lr=lr)
        self._scale = scale


class Squared(optim.SGD):
    """An optimizer that does not hand on what it got."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr * lr)


class Variadic(optim.SGD):
    """An optimizer that takes anything."""

    def __init__(self, params, **options):
        super().__init__(params, lr=options["rate"])


class Warm(lrs.LambdaLR):
    """A scheduler that hides its argument in a function."""

    def __init__(self, optimizer, steps):
        super().__init__(optimizer, lambda epoch: min(1.0, (epoch + 1) / steps))


class WarmKept(lrs.LambdaLR):
    """A scheduler that keeps its argument."""

    def __init__(self, optimizer, steps):
        self.steps = steps
        super().__init__(optimizer, lambda epoch: min(1.0, (epoch + 1) / steps))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: Hiding(p, 0.1, scale=2.0), "does not keep its argument 'scale'"),
        (lambda p: Squared(p, 0.5), "no argument gives lr=0.25"),
        (lambda p: Variadic(p, rate=0.1), r"takes \*options"),
    ],
)
def test_optimizers_that_hide_arguments_are_refused(make, reason):
    """An optimizer that cannot be told exactly is never guessed."""
    model = net()
    with pytest.raises(ValidationError, match=reason):
        TorchEvaluator(train, make(model.parameters()), torch.nn.functional.mse_loss, model=model)


def test_classes_of_the_user_that_keep_their_arguments_are_adopted():
    """Optimizer and scheduler of one's own."""

    def make(model):
        built = Keeping(model.parameters(), 0.1, scale=3.0)
        return [built], [WarmKept(built, 4)]

    check_exact(make)


def test_a_scheduler_that_hides_its_argument_is_refused():
    """What its function closes over may have come from anywhere."""
    model = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValidationError, match="does not keep its argument 'steps'"):
        TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss, Warm(optimizer, 3), model=model)


def test_adoption_leaves_the_live_objects_as_they_are():
    """Neither options, nor hooks, nor state of an adopted optimizer change."""
    model = net()
    optimizer = optim.AdamW(two_groups(model, lr=0.3), lr=0.1)
    scheduler = lrs.CyclicLR(optimizer, 0.01, 0.1, step_size_up=3)
    steps(model, [optimizer], [scheduler], 3)
    before = copy.deepcopy((optimizer.state_dict(), {**scheduler.state_dict(), "_scale_fn_ref": None}))
    names = set(vars(optimizer)), set(vars(scheduler))
    TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss, scheduler, model=model)
    after = (optimizer.state_dict(), {**scheduler.state_dict(), "_scale_fn_ref": None})
    assert str(before) == str(after)
    assert names == (set(vars(optimizer)), set(vars(scheduler)))
