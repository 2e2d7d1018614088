"""Recorded arguments against annotations: no false alarm, no missed type error."""

# ruff: noqa: E501 - a table keeps one case on one line
# ruff: noqa: UP042 - the older form, which users have

from __future__ import annotations

import copy
import dataclasses
import enum
import fractions
import typing
import warnings

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import optim
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

from rebind import Construction, TorchEvaluator, trace
from rebind.evaluator_schema.checking import annotations
from rebind.evaluator_schema.checking.signatures import signature_of


def half(epoch):
    return 0.5


class Halver:
    def __call__(self, epoch):
        return 0.5


class Mode(str, enum.Enum):
    LOW = "min"
    COSINE = "cos"


class Count(enum.IntEnum):
    TWO = 2


OPTIMIZERS = [
    optim.ASGD, optim.Adadelta, optim.Adafactor, optim.Adagrad, optim.Adam, optim.AdamW, optim.Adamax, optim.LBFGS,
    optim.Muon, optim.NAdam, optim.RAdam, optim.RMSprop, optim.Rprop, optim.SGD, optim.SparseAdam,
]  # fmt: skip
SCHEDULERS = {
    lrs.StepLR: {"step_size": 2},
    lrs.MultiStepLR: {"milestones": [2]},
    lrs.LambdaLR: {"lr_lambda": half},
    lrs.MultiplicativeLR: {"lr_lambda": half},
    lrs.ConstantLR: {},
    lrs.LinearLR: {},
    lrs.ExponentialLR: {"gamma": 0.9},
    lrs.PolynomialLR: {},
    lrs.CosineAnnealingLR: {"T_max": 4},
    lrs.CosineAnnealingWarmRestarts: {"T_0": 2},
    lrs.ReduceLROnPlateau: {"patience": 1},
    lrs.CyclicLR: {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    lrs.OneCycleLR: {"max_lr": 0.1, "total_steps": 20},
    SWALR: {"swa_lr": 0.05},
}
TARGETS = [*OPTIMIZERS, *SCHEDULERS]
ARGUMENTS = [
    (target, name)
    for target in TARGETS
    for name in signature_of(target).parameters
    if name not in ("params", "optimizer", "last_epoch", "self")
]

NUMBERS = [
    0, 1, 2, 3, True, False, 0.5, 0.9, 2.0, 2.5, 1e-3, float("inf"), fractions.Fraction(1, 2), Count.TWO,
    np.float64(0.5), np.float32(0.5), np.int64(2), np.bool_(True), np.array(0.5), np.array(2),
    torch.tensor(0.5), torch.tensor(2), torch.tensor([0.5]), torch.tensor(True),
]  # fmt: skip
SEQUENCES = [
    [0.5, 0.9], (0.5, 0.9), [0.5], [0.5, 0.9, 0.1], (3.0, -4.0, 2.0), (np.float64(0.5), np.float32(0.9)), [1, 2],
    (torch.tensor(0.5), torch.tensor(0.9)), np.array([0.5, 0.9]), torch.tensor([0.5, 0.9]), (1, 2),
    [2.0, 4.0], np.array([1, 2]), torch.tensor([1, 2]), range(1, 3),
]  # fmt: skip
FUNCTIONS = [half, Halver(), (half,), [half], [Halver()], None]
TEXTS = [
    None, "min", "max", "rel", "abs", "cos", "linear", "triangular", "exp_range", "cycle",
    "strong_wolfe", "original", "match_rms_adamw", "iterations", Mode.LOW, Mode.COSINE, np.str_("cos"),
]  # fmt: skip
# Where nothing looks at an argument, anything goes; these are the arguments, and what makes them unread.
UNREAD = {
    (optim.SGD, "dampening"),  # without momentum
    (lrs.ConstantLR, "total_iters"),  # compared for equality only
    (lrs.OneCycleLR, "epochs"),  # with total_steps
    (lrs.OneCycleLR, "steps_per_epoch"),
    (lrs.CyclicLR, "gamma"),  # in the triangular modes
    (lrs.OneCycleLR, "final_div_factor"),  # a learning rate per element, never reached
    (optim.Muon, "eps"),
}


def describe(value):
    return value.__name__ if isinstance(value, type) else str(value)


def works(target, **arguments):
    """Construct for real and train for six steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(2, 2)) for _ in range(2)]
        try:
            if target in SCHEDULERS:
                optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9)
                scheduler = target(optimizer, **{**SCHEDULERS[target], **arguments})
            else:
                optimizer, scheduler = target(parameters, **arguments), None
            for _ in range(6):
                step(optimizer, scheduler, parameters)
        except Exception:
            return False
    return True


def step(optimizer, scheduler, parameters):
    def closure():
        optimizer.zero_grad()
        loss = sum((parameter - 1).square().sum() for parameter in parameters)
        loss.backward()
        if isinstance(optimizer, optim.SparseAdam):
            for parameter in parameters:
                parameter.grad = parameter.grad.to_sparse()
        return loss

    closure()
    optimizer.step(closure) if isinstance(optimizer, optim.LBFGS) else optimizer.step()
    if scheduler is not None:
        scheduler.step(1.0) if isinstance(scheduler, lrs.ReduceLROnPlateau) else scheduler.step()


def complaint(target, name, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return annotations.mismatch(target, signature_of(target).parameters[name], value)


def kind_of(target, name):
    """Tell what sort of argument this is: a truth, a text, a function or a number (or several)."""
    text = str(signature_of(target).parameters[name].annotation)
    if "bool" in text:
        return "truth"
    if "Literal" in text or "str" in text:
        return "text"
    return "function" if "Callable" in text else "number"


@pytest.mark.parametrize(("target", "name"), ARGUMENTS, ids=describe)
def test_whatever_a_constructor_takes_and_trains_with_is_never_reported(target, name):
    """Every value of the table that works in the real constructor passes validation."""
    kind = kind_of(target, name)
    sensible = {
        "truth": [*NUMBERS, None],
        "text": TEXTS,
        "function": FUNCTIONS,
        "number": [1, 2, 3] if (target, name) in UNREAD else [*NUMBERS, *SEQUENCES],
    }[kind]
    for value in sensible:
        said = complaint(target, name, copy.deepcopy(value))
        if said is not None:
            assert not works(target, **{name: copy.deepcopy(value)}), said


WRONG = {
    "truth": ["yes", "false", "1", b"1", {}, [True], object(), half],
    "text": [3, 0.5, ["cos"], object(), b"cos", half],
    "function": ["half", 0.5, object(), {}, b"x"],
    "number": ["0.1", "abc", b"1", {}, {1: 2}, object(), half, torch.nn.ReLU, 1j],
}


@pytest.mark.parametrize(("target", "name"), ARGUMENTS, ids=describe)
def test_every_type_error_is_reported(target, name):
    """Text is no number and no truth, a mapping is no number, a number is no text."""
    if signature_of(target).parameters[name].annotation is signature_of(target).empty:
        pytest.skip("torch tells no type")
    for value in WRONG[kind_of(target, name)]:
        if name == "milestones" and isinstance(value, dict):
            continue  # its keys can be iterated
        assert complaint(target, name, value) is not None, value


@pytest.mark.parametrize(
    "number",
    [torch.zeros(1, device="meta"), torch.zeros(1, dtype=torch.uint8).view(torch.bits8)],
    ids=["meta", "bits"],
)
def test_a_tensor_whose_number_cannot_be_read_is_not_judged(number):
    """There is no number to look at; a tensor of two is none in any case."""
    assert complaint(torch.optim.SGD, "momentum", number) is None
    assert complaint(torch.optim.SGD, "momentum", torch.zeros(2, device="meta")) is not None


@pytest.mark.parametrize(
    "target", [t for t in OPTIMIZERS if "betas" in signature_of(t).parameters], ids=describe
)
@pytest.mark.parametrize("betas", [{0.8, 0.9}, (0.9,), (0.9, 0.99, 0.999), ("0.8", "0.9"), 0.9])
def test_betas_of_another_form_are_reported(target, betas):
    """A set has no order, and there are two of them."""
    assert complaint(target, "betas", betas) is not None


PROOFS = {
    (optim.LBFGS, "max_iter"): 2.5,
    (optim.LBFGS, "max_eval"): 2.5,
    (lrs.StepLR, "step_size"): 2.5,
    (lrs.ConstantLR, "total_iters"): 2.5,
    (lrs.LinearLR, "total_iters"): 2.5,
    (lrs.PolynomialLR, "total_iters"): 2.5,
    (lrs.CosineAnnealingLR, "T_max"): 2.5,
    (lrs.MultiStepLR, "milestones"): [2.5],
    (lrs.ReduceLROnPlateau, "patience"): 2.5,
    (lrs.ReduceLROnPlateau, "cooldown"): 2.5,
    (lrs.CyclicLR, "step_size_up"): 2.5,
    (lrs.CyclicLR, "step_size_down"): 2.5,
    (lrs.CyclicLR, "base_momentum"): [0.8],
    (lrs.CyclicLR, "max_momentum"): [0.9],
    (SWALR, "swa_lr"): [0.05],
    (lrs.CyclicLR, "mode"): "my own",
    (lrs.CyclicLR, "gamma"): None,
    (lrs.CyclicLR, "scale_mode"): None,
}


def test_every_exception_to_the_annotations_has_a_proof():
    """Nothing is in the table that is not shown to be needed below."""
    assert set(PROOFS) == set(annotations.ACCEPTED_TOO)


@pytest.mark.parametrize(("target", "name"), PROOFS, ids=describe)
def test_every_exception_to_the_annotations_is_needed(target, name, monkeypatch):
    """The real constructor takes the value and trains, and without the entry it would be reported."""
    value = PROOFS[target, name]
    more = {"scale_fn": half} if name == "mode" else {}
    assert works(target, **{name: value}, **more)
    assert complaint(target, name, value) is None
    monkeypatch.delitem(annotations.ACCEPTED_TOO, (target, name))
    assert complaint(target, name, value) is not None


Rate = typing.NewType("Rate", float)
Number = typing.TypeVar("Number", int, float)


@dataclasses.dataclass
class Options:
    lr: float
    nesterov: bool = False


def of_options(params, options: Options):
    return optim.SGD(params, lr=options.lr)


def of_rate(params, rate: Rate):
    return optim.SGD(params, lr=rate)


def of_optional(params, rate: float | None = None):
    return optim.SGD(params, lr=rate or 0.1)


def of_literal(params, size: typing.Literal["small", "large"]):
    return optim.SGD(params, lr=0.1 if size == "small" else 1.0)


def of_union(params, rate: int | str):
    return optim.SGD(params, lr=float(rate))


def of_variable(params, rate: Number):
    return optim.SGD(params, lr=rate)


def of_unknown(params, rate: Unresolvable):  # noqa: F821 - that is the point
    return optim.SGD(params, lr=rate)


def of_mapping(params, rates: dict[str, float]):
    return optim.SGD(params, lr=rates["all"])


def of_many(params, *rates: float, **more: float):
    return optim.SGD(params, lr=rates[0], **more)


ACCEPTED = [
    (of_options, (Options(0.1),), {}), (of_rate, (0.1,), {}), (of_rate, (1,), {}), (of_optional, (None,), {}),
    (of_optional, (0.5,), {}), (of_literal, ("small",), {}), (of_union, ("3",), {}), (of_union, (3,), {}),
    (of_variable, (0.1,), {}), (of_unknown, ("whatever",), {}), (of_unknown, (0.1,), {}),
    (of_mapping, ({"all": 0.1},), {}), (of_many, (0.1, 0.2), {"momentum": 0.5}),
]  # fmt: skip
REPORTED = [
    (of_options, ("fast",), {}, "args.1"), (of_rate, ("0.1",), {}, "args.1"), (of_optional, ("0.1",), {}, "args.1"),
    (of_literal, ("medium",), {}, "args.1"), (of_union, (object(),), {}, "args.1"),
    (of_mapping, ({"all": "0.1"},), {}, "args.1"), (of_many, (0.1, "x"), {}, "args.2"),
    (of_many, (0.1,), {"momentum": "x"}, "kwargs.momentum"), (of_variable, ("0.1",), {}, "args.1"),
]  # fmt: skip


@pytest.mark.parametrize(("factory", "args", "kwargs"), ACCEPTED)
def test_annotations_of_the_users_own_factories_are_understood(factory, args, kwargs):
    """Data classes, new types, optional, literal, union, variable and unresolvable annotations."""
    assert Construction(target=factory, args=([], *args), kwargs=kwargs)


@pytest.mark.parametrize(("factory", "args", "kwargs", "where"), REPORTED)
def test_wrong_arguments_of_the_users_own_factories_are_reported_at_their_place(factory, args, kwargs, where):
    """Each error is located."""
    with pytest.raises(ValidationError) as caught:
        Construction(target=factory, args=([], *args), kwargs=kwargs)
    assert [".".join(map(str, error["loc"])) for error in caught.value.errors()] == [where]


def test_values_are_compared_and_never_converted():
    """A number that passes as another stays what it was."""
    spec = Construction(
        target=optim.SGD, args=([],), kwargs={"lr": 1, "momentum": np.float32(0.5), "nesterov": 0}
    )
    assert type(spec.kwargs["lr"]) is int
    assert type(spec.kwargs["momentum"]) is np.float32
    assert type(spec.kwargs["nesterov"]) is int


def test_what_the_constructors_of_live_objects_took_makes_an_evaluator():
    """The same through the front door."""
    model = torch.nn.Linear(2, 1)
    optimizer = trace(optim.AdamW)(
        model.parameters(),
        lr=np.float64(0.1),
        betas=[0.8, 0.9],
        amsgrad=np.bool_(0),
        maximize=0,
    )
    scheduler = trace(lrs.StepLR)(optimizer, step_size=2.5, gamma=torch.tensor(0.5))
    assert TorchEvaluator(
        lambda model, optimizers, criterion: None, optimizer, torch.nn.functional.l1_loss, scheduler
    )
