"""Hypothesis strategies for models, traced optimizers and schedulers, and evaluators."""

from __future__ import annotations

import functools
from typing import Any

import torch
from hypothesis import reject
from hypothesis import strategies as st
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..evaluator_schema import TorchEvaluator, trace
from .curves import advance
from .drawn_optimizers import parameter_styles, torch_optimizers
from .drawn_schedulers import scheduler_plans
from .generated import Generated, Plan
from .loops import score, train

# Names that modules have, and those that wrappers and parametrizations put into the names of parameters.
_NAMES = (
    "a", "b", "fc", "conv1", "head", "layers", "0", "1", "module", "base_layer", "original", "weight_norm",
    "_orig_mod", "base_model", "model", "net_g", "net_v",
)  # fmt: skip


@st.composite
def models(draw: st.DrawFn, *, max_depth: int = 3, matrices_only: bool = False) -> Generated:
    """Draw a model, of any depth and with any names, with tied and frozen parameters.

    Its `similar` gives the models that an evaluator may be bound to.

    Args:
        draw: Given by Hypothesis.
        max_depth: How deep blocks lie in each other.
        matrices_only: Whether every parameter has two dimensions, as `Muon` demands.
    """
    kinds = ("plain",) if matrices_only else ("linear", "plain", "norm")
    first = draw(st.sampled_from(_NAMES))
    children = (Plan(first, kinds[0]), *_children(draw, max_depth, kinds, {first}))
    model = Generated(Plan("", "block", children), draw(st.integers(1, 5)), draw(st.integers(0, 9)))
    if not any(p.requires_grad and p.ndim == 2 for p in model.parameters()):
        reject()
    return model


def _children(draw: st.DrawFn, depth: int, kinds: tuple[str, ...], taken: set[str]) -> tuple[Plan, ...]:
    free = [name for name in _NAMES if name not in taken]
    children = []
    for name in draw(st.lists(st.sampled_from(free), max_size=3, unique=True)):
        kind = draw(st.sampled_from([*kinds, *(["block"] if depth > 1 else [])]))
        if kind == "block":
            children.append(Plan(name, kind, _children(draw, depth - 1, kinds, set())))
        else:
            tied = kind != "norm" and draw(st.integers(0, 3)) == 0
            children.append(Plan(name, kind, (), draw(st.integers(0, 3)) == 0, tied))
    return tuple(children)


@st.composite
def renames(draw: st.DrawFn, model: Generated) -> tuple[dict[str, str], dict[str, str]]:
    """Draw new names for some modules of a model.

    Args:
        draw: Given by Hypothesis.
        model: A model that `models` gave.

    Returns:
        Names of modules, for `model.similar(names=...)`, and the names of parameters that follow, for
        `bind(..., rename=...)`.
    """
    known = sorted({part for name, _ in model.named_modules() for part in name.split(".") if part})
    names = {name: f"new_{name}" for name in draw(st.lists(st.sampled_from(known), unique=True))}
    renamed = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        *path, last = name.split(".")
        new = ".".join([*(names.get(part, part) for part in path), last])
        if new != name:
            renamed[name] = new
    return names, renamed


@st.composite
def optimizers(draw: st.DrawFn, model: Module) -> Optimizer:
    """Draw a traced optimizer of torch over a model, with any options and groups in any style.

    What torch itself refuses is not drawn. LBFGS wants a closure at each step.

    Args:
        draw: Given by Hypothesis.
        model: Whose parameters it gets, all of them or some.
    """
    target, options = draw(torch_optimizers())
    make = draw(parameter_styles(model, target, options))
    tried = _require_legal(functools.partial(make, lambda target: target))
    if not _can_step(tried):
        reject()
    optimizer: Optimizer = make(trace)
    return optimizer


@st.composite
def lr_schedulers(draw: st.DrawFn, optimizer: Optimizer) -> LRScheduler:
    """Draw a traced learning-rate scheduler of torch for an optimizer, maybe nested in others.

    It is built on this very optimizer. What torch itself refuses to build, or to step a dozen times, is not
    drawn.

    Args:
        draw: Given by Hypothesis.
        optimizer: A traced one, as `optimizers` draws it.
    """
    make = draw(scheduler_plans(len(optimizer.param_groups)))
    stand_in = _stand_in(optimizer)
    tried = _require_legal(lambda: make(lambda target: target, stand_in))
    for number in range(12):  # some nested ones, and those that are over, are refused only now
        _require_legal(functools.partial(advance, tried, number))
    scheduler: LRScheduler = make(trace, optimizer)
    return scheduler


@st.composite
def evaluators(draw: st.DrawFn, model: Module | None = None) -> TorchEvaluator:
    """Draw an evaluator: one or two optimizers over a model, and schedulers for them.

    Its training function is `rebind.testing.loops.train`, which needs no data.

    Args:
        draw: Given by Hypothesis.
        model: The model; one of `models()`, which is then gone, if it is not given.
    """
    if model is None:
        model = draw(models())
    drawn = draw(st.lists(optimizers(model), min_size=1, max_size=2))
    scheduled = [
        scheduler for optimizer in drawn for scheduler in draw(st.lists(lr_schedulers(optimizer), max_size=2))
    ]
    form = draw(st.booleans())
    return TorchEvaluator(
        train,
        drawn if form or len(drawn) > 1 else drawn[0],
        torch.nn.functional.mse_loss,
        None if not scheduled else scheduled if form or len(scheduled) > 1 else scheduled[0],
        dummy_input=draw(st.sampled_from([None, torch.ones(2, 3)])),
        evaluating_func=score,
        model=model,
    )


def _require_legal(make: Any) -> Any:
    try:
        return make()
    except (TypeError, ValueError, KeyError, NotImplementedError):
        reject()


def _can_step(optimizer: Optimizer) -> bool:
    """Tell whether an optimizer can use all groups that it took: two check what is added later only then."""
    if isinstance(optimizer, torch.optim.LBFGS):
        return len(optimizer.param_groups) == 1
    matrices_only = isinstance(optimizer, torch.optim.Muon)
    return not matrices_only or all(p.ndim == 2 for g in optimizer.param_groups for p in g["params"])


def _stand_in(optimizer: Optimizer) -> Optimizer:
    """Give an optimizer with the same groups, on which a scheduler can be tried."""
    groups = [
        {**group, "params": [torch.nn.Parameter(torch.zeros(1, 1))], "param_names": ["p"]}
        if "param_names" not in group
        else {**group, "params": [(f"p{number}", torch.nn.Parameter(torch.zeros(1, 1)))]}
        for number, group in enumerate(optimizer.param_groups)
    ]
    for group in groups:
        group.pop("param_names", None)
        for key, value in group.items():
            if key != "params" and isinstance(value, torch.Tensor):
                group[key] = value.clone()
    return _StandIn(groups, dict(optimizer.defaults))


class _StandIn(Optimizer):
    """An optimizer that never steps."""
