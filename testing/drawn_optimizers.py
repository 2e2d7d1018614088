"""Strategies for optimizers of torch: their options, and the ways to hand parameters to them."""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch.nn import Module
from torch.optim import Optimizer

from ..evaluator_schema.checking.signatures import signature_of

# Makes an optimizer, given `trace` or nothing to put around what is called.
Make = Callable[[Callable[[Any], Any]], Any]

_RATES = st.sampled_from([1e-4, 0.003, 0.01, 0.1, 0.5])
_OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "lr": _RATES,
    "betas": st.sampled_from([(0.9, 0.99), (0.5, 0.9), [0.8, 0.95]]),
    "weight_decay": st.sampled_from([0, 0.01, 0.1]),
    "momentum": st.sampled_from([0.0, 0.5, 0.9]),
    "nesterov": st.booleans(),
    "dampening": st.sampled_from([0, 0.1]),
    "amsgrad": st.booleans(),
    "maximize": st.booleans(),
    "rho": st.sampled_from([0.9, 0.5]),
    "alpha": st.sampled_from([0.9, 0.99]),
    "centered": st.booleans(),
    "etas": st.just((0.6, 1.1)),
    "lambd": st.just(1e-3),
    "lr_decay": st.sampled_from([0, 0.1]),
    "decoupled_weight_decay": st.booleans(),
    "max_iter": st.integers(1, 3),
}


def _optimizer_classes() -> Iterator[type[Optimizer]]:
    """Walk what this torch has, so that an optimizer that a later one brings is drawn, too."""
    for value in vars(torch.optim).values():
        if isinstance(value, type) and issubclass(value, Optimizer) and value is not Optimizer:
            yield value


@st.composite
def torch_optimizers(draw: st.DrawFn) -> tuple[type[Optimizer], dict[str, Any]]:
    """Draw a class of optimizers and options for it."""
    target = draw(st.sampled_from(list(_optimizer_classes())))
    signature = signature_of(target) or inspect.Signature()
    accepted = {name: _OPTIONS[name] for name in signature.parameters if name in _OPTIONS and name != "lr"}
    options: dict[str, Any] = draw(st.fixed_dictionaries({"lr": _RATES}, optional=accepted))
    if draw(st.integers(0, 5)) == 0:  # a tensor is written in place, by schedulers, too
        options["lr"] = torch.tensor(options["lr"])
    return target, options


@st.composite
def parameter_styles(
    draw: st.DrawFn, model: Module, target: Callable[..., Any], options: dict[str, Any]
) -> Make:
    """Draw a way to hand the parameters of a model to an optimizer."""
    whole = draw(st.sampled_from(_WHOLE))
    if draw(st.booleans()):
        return lambda t: t(target)(whole(model), **_fresh(options))
    named = draw(st.booleans())
    pairs = list(model.named_parameters())
    count = draw(st.integers(1, min(3, len(pairs))))
    places = [*range(count), *(draw(st.integers(0, count - 1)) for _ in pairs[count:])]
    extra = [
        draw(st.fixed_dictionaries({}, optional={"lr": _RATES, "note": st.text()})) for _ in range(count)
    ]
    later = draw(st.integers(0, count - 1))

    def make(t: Callable[[Any], Any]) -> Any:
        groups = [{"params": [], **_fresh(more)} for more in extra]
        for (name, parameter), place in zip(pairs, places, strict=True):
            groups[place]["params"].append((name, parameter) if named else parameter)
        optimizer = t(target)(groups[: count - later], **_fresh(options))
        for group in groups[count - later :]:
            optimizer.add_param_group(group)
        return optimizer

    return make


def _fresh(options: dict[str, Any]) -> dict[str, Any]:
    """Copy options, since an optimizer may write into tensors."""
    return {
        key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in options.items()
    }


_WHOLE: list[Callable[[Module], Any]] = [
    lambda model: model.parameters(),
    lambda model: model.named_parameters(),
    lambda model: list(model.parameters()),
    lambda model: tuple(model.parameters())[::-1],
    lambda model: list(model.named_parameters()),
    lambda model: filter(lambda p: p.requires_grad, model.parameters()),
    lambda model: (p for p in model.parameters() if p.ndim == 2),
    lambda model: map(operator.itemgetter(1), model.named_parameters()),
    lambda model: itertools.chain(model.parameters()),
    lambda model: [next(model.parameters())],
    lambda model: [{"params": model.parameters()}],
    lambda model: dict(model.named_parameters()).values(),
]
