"""The oracle: the recorded calls made again by hand, without any code of the runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import Module

from ..evaluator_schema import Construction, Evaluator
from ..evaluator_schema.values import (
    InPlace,
    Iterated,
    ModuleHole,
    ParameterHole,
    ParametersHole,
    Ref,
    Shared,
)


def construct_directly(evaluator: Evaluator, model: Module) -> tuple[list[Any], list[Any]]:
    """Call again what the user called, in the same order, with this model's parameters as arguments.

    This is what a reinitialised optimizer is compared with, so it is as plain as can be: a parameter is
    the one of that very name in `model.named_parameters()`, and nothing is matched, renamed or left out.
    Where the user passed the model's parameters in the model's own order, they come in this model's order.

    Args:
        evaluator: A `TorchEvaluator`, or another one with `optimizers` and `lr_schedulers`.
        model: A model that has all recorded names.

    Returns:
        The optimizers and the schedulers, each as a list.

    Raises:
        KeyError: The model has no parameter of a recorded name.
    """
    optimizers, schedulers = _listed(evaluator, "optimizers"), _listed(evaluator, "lr_schedulers")
    caller = _Caller(model)
    caller.call_all([*optimizers, *schedulers])
    return [caller.made[item.order] for item in optimizers], [caller.made[item.order] for item in schedulers]


def _listed(evaluator: Evaluator, field: str) -> list[Construction]:
    value = getattr(evaluator, field, None)
    if value is None:
        return []
    return list(value) if isinstance(value, tuple) else [value]


class _Caller:
    def __init__(self, model: Module) -> None:
        self.made: dict[int, Any] = {}
        self._model = model
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._places = {name: place for place, name in enumerate(self._parameters)}
        self._shared: dict[int, Any] = {}

    def call_all(self, constructions: list[Construction]) -> None:
        moments: list[tuple[int, Callable[[], None]]] = []
        pending = list(constructions)
        while pending:
            item = pending.pop()
            moments.append((item.order, lambda item=item: self._call(item)))  # type: ignore[misc]  # bound in a loop
            moments += [
                (change.order, lambda item=item, change=change: self._change(item, change))  # type: ignore[misc]
                for change in item.changes
            ]
            pending += _inside([item.args, item.kwargs])
        for _, act in sorted(moments, key=lambda moment: moment[0]):
            act()

    def _call(self, item: Construction) -> None:
        keywords = {key: self._value(value) for key, value in item.kwargs.items()}
        self.made[item.order] = item.target(*(self._value(value) for value in item.args), **keywords)

    def _change(self, item: Construction, change: Any) -> None:
        groups = self.made[item.order].param_groups
        options = {key: self._value(value) for key, value in change.options.items()}
        if change.group == len(groups):
            self.made[item.order].add_param_group(options)
            return
        for key, value in options.items():
            if isinstance(value, InPlace):
                groups[change.group][key].copy_(value.value)
            else:
                groups[change.group][key] = value

    def _value(self, value: Any) -> Any:
        if isinstance(value, ParametersHole):
            names = sorted(value.names, key=self._places.__getitem__) if value.model_order else value.names
            found = [(name, self._parameters[name]) for name in names]
            return found if value.named else [parameter for _, parameter in found]
        if isinstance(value, ParameterHole):
            return self._parameters[value.name]
        if isinstance(value, ModuleHole):
            return self._model.get_submodule(value.name)
        if isinstance(value, Ref | Construction):
            return self.made[value.order]
        if isinstance(value, Iterated):
            return iter(self._value(value.items))
        if isinstance(value, Shared):
            if value.number not in self._shared:
                self._shared[value.number] = self._value(value.value)
            return self._shared[value.number]
        if isinstance(value, InPlace):
            return value
        return self._plain(value)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.detach().clone().requires_grad_(value.requires_grad)
        if isinstance(value, Mapping):
            return type(value)({key: self._value(item) for key, item in value.items()})  # type: ignore[call-arg]
        if type(value) in (list, tuple, set, frozenset):
            return type(value)(self._value(item) for item in value)
        return copy.deepcopy(value)


def _inside(value: Any) -> list[Construction]:
    if isinstance(value, Construction):
        return [value]
    if isinstance(value, Iterated):
        return _inside(value.items)
    if isinstance(value, Mapping):
        value = list(value.values())
    return [found for item in value for found in _inside(item)] if isinstance(value, list | tuple) else []
