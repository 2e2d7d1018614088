"""The ways to hand parameters to an optimizer, and what is done to its groups afterwards.

Each is what a user writes, with `t(...)` around the class: `trace` when it is recorded, nothing when the
same code runs directly on the new model. A style is a generator: it yields its optimizers, the schedulers
are built, and it goes on.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

Style = Callable[..., Iterator[Any]]


@dataclass(frozen=True)
class Entry:
    """A style, and whether the evaluator has to be told the model."""

    style: Style
    pass_model: bool


STYLES: dict[str, Entry] = {}


def style(name: str, *, pass_model: bool = False):
    def enter(function: Style) -> Style:
        STYLES[name] = Entry(function, pass_model)
        return function

    return enter


def halves(items):
    items = list(items)
    return items[: len(items) // 2], items[len(items) // 2 :]


def rate_of(options):
    return next((name for name in ("lr", "step_size", "rate") if name in options), "lr")


@style("parameters()")
def _(t, cls, model, options):
    yield t(cls)(model.parameters(), **options)


@style("parameters(), by keyword", pass_model=True)
def _(t, cls, model, options):
    first = "weights" if "step_size" in options else "params"
    yield t(cls)(**{first: model.parameters()}, **options)


@style("named_parameters()")
def _(t, cls, model, options):
    yield t(cls)(model.named_parameters(), **options)


@style("a list of names and parameters")
def _(t, cls, model, options):
    yield t(cls)(list(model.named_parameters()), **options)


@style("a list", pass_model=True)
def _(t, cls, model, options):
    yield t(cls)(list(model.parameters()), **options)


@style("a tuple, in another order", pass_model=True)
def _(t, cls, model, options):
    yield t(cls)(tuple(model.parameters())[::-1], **options)


@style("filter(requires_grad)")
def _(t, cls, model, options):
    yield t(cls)(filter(lambda p: p.requires_grad, model.parameters()), **options)


@style("a generator expression")
def _(t, cls, model, options):
    yield t(cls)((p for p in model.parameters() if p.requires_grad), **options)


@style("a generator expression over names")
def _(t, cls, model, options):
    yield t(cls)((p for name, p in model.named_parameters() if not name.startswith("frozen")), **options)


@style("filter over names")
def _(t, cls, model, options):
    yield t(cls)(filter(lambda pair: pair[1].requires_grad, model.named_parameters()), **options)


@style("map")
def _(t, cls, model, options):
    yield t(cls)(map(operator.itemgetter(1), model.named_parameters()), **options)


@style("chain of two modules", pass_model=True)
def _(t, cls, model, options):
    yield t(cls)(itertools.chain(model.head.parameters(), model.body.parameters()), **options)


@style("islice")
def _(t, cls, model, options):
    yield t(cls)(itertools.islice(model.parameters(), 1, None), **options)


@style("groups with options", pass_model=True)
def _(t, cls, model, options):
    first, second = halves(model.parameters())
    yield t(cls)([{"params": first}, {"params": second, "lr": 0.003, "note": "second"}], **options)


@style("groups of iterators", pass_model=True)
def _(t, cls, model, options):
    groups = [
        {"params": model.body.parameters(), "lr": 0.02},
        {"params": filter(lambda p: p.requires_grad, model.head.parameters())},
    ]
    yield t(cls)(groups, **options)


@style("groups from a generator", pass_model=True)
def _(t, cls, model, options):
    yield t(cls)(({"params": child.parameters()} for child in model.children()), **options)


@style("groups of named pairs")
def _(t, cls, model, options):
    first, second = halves(model.named_parameters())
    yield t(cls)([{"params": first, "lr": 0.02}, {"params": iter(second)}], **options)


@style("one group in a list that is used twice", pass_model=True)
def _(t, cls, model, options):
    group = {"params": list(model.parameters()), "lr": 0.02}
    groups = [group]
    cls(groups, **options)  # torch writes its defaults into the caller's own dict
    yield t(cls)(groups, **options)


@style("a single tensor", pass_model=True)
def _(t, cls, model, options):
    yield t(cls)(model.head.weight, **options)


@style("a list of one tensor", pass_model=True)
def _(t, cls, model, options):
    yield t(cls)([model.head.weight], **options)


@style("groups of a single tensor", pass_model=True)
def _(t, cls, model, options):
    groups = [{"params": model.head.weight, "lr": 0.02}, {"params": model.body[0].weight}]
    yield t(cls)(groups, **options)


@style("a dict without a list", pass_model=True)
def _(t, cls, model, options):
    yield t(cls)({"params": list(model.parameters())}, **options)


@style("two optimizers", pass_model=True)
def _(t, cls, model, options):
    yield [
        t(cls)(model.body.parameters(), **options),
        t(cls)(model.head.parameters(), **{**options, rate_of(options): 0.007}),
    ]


@style("two optimizers over the same parameters")
def _(t, cls, model, options):
    yield [t(cls)(model.parameters(), **options), t(torch.optim.SGD)(model.parameters(), lr=0.001)]


@style("add_param_group before the scheduler", pass_model=True)
def _(t, cls, model, options):
    optimizer = t(cls)(model.body.parameters(), **options)
    optimizer.add_param_group({"params": model.head.parameters(), "lr": 0.004})
    yield optimizer


@style("add_param_group after the scheduler", pass_model=True)
def _(t, cls, model, options):
    optimizer = t(cls)(model.body.parameters(), **options)
    yield optimizer
    optimizer.add_param_group({"params": model.head.parameters(), "lr": 0.004, "initial_lr": 0.004})


@style("add_param_group of named pairs")
def _(t, cls, model, options):
    first, second = halves(model.named_parameters())
    optimizer = t(cls)(first, **options)
    optimizer.add_param_group({"params": second})
    yield optimizer


@style("lr changed before the scheduler")
def _(t, cls, model, options):
    optimizer = t(cls)(model.parameters(), **options)
    optimizer.param_groups[0]["lr"] = 0.005
    optimizer.param_groups[0]["later"] = [1, 2]
    yield optimizer


@style("options changed after the scheduler")
def _(t, cls, model, options):
    optimizer = t(cls)(model.parameters(), **options)
    yield optimizer
    optimizer.param_groups[0]["lr"] = 0.005
    for key in ("weight_decay", "momentum", "eps"):
        if isinstance(optimizer.param_groups[0].get(key), float):
            optimizer.param_groups[0][key] *= 0.5


@style("parameters replaced and moved between groups", pass_model=True)
def _(t, cls, model, options):
    first, second = halves(model.parameters())
    optimizer = t(cls)([{"params": first}, {"params": second}], **options)
    optimizer.param_groups[1]["params"].append(optimizer.param_groups[0]["params"].pop())
    yield optimizer


@style("a factory")
def _(t, cls, model, options):
    def make_optimizer(model, decay, **options):
        with_decay = [p for p in model.parameters() if p.ndim > 1]
        without = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": with_decay, "weight_decay": decay}]
        return cls([*groups, {"params": without}] if without else groups, **options)

    yield t(make_optimizer)(model, 0.01, **options)


@style("a factory of parameters")
def _(t, cls, model, options):
    yield t(lambda parameters, scale, **options: cls(parameters, **options))(
        model.parameters(), scale=2, **options
    )


@style("a factory that adds a group later", pass_model=True)
def _(t, cls, model, options):
    def make_optimizer(model, **options):
        return cls(model.body.parameters(), **options)

    optimizer = t(make_optimizer)(model, **options)
    optimizer.add_param_group({"params": list(model.head.parameters()), "lr": 0.02})
    yield optimizer


@style("a partial")
def _(t, cls, model, options):
    yield t(functools.partial(cls, **options))(model.parameters())


@style("options by position")
def _(t, cls, model, options):
    options = dict(options)
    first = options.pop(rate_of(options), 0.01)
    yield t(cls)(model.parameters(), first, **options)
