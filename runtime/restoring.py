"""Giving a model back as it was: training modes, flags, gradients, hooks and attributes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch.nn import Module, Parameter

# What a module keeps its hooks in. They are compared and restored key by key.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Pristine:
    """What a model was like at one moment, apart from its weights.

    Training changes weights and buffers for good, which is what it is for; training modes,
    `requires_grad`, hooks, and gradients that were not there before are put back.
    """

    def __init__(self, model: Module) -> None:
        self._modes = [(module, module.training) for module in model.modules()]
        self._hooks = [
            (module, name, dict(getattr(module, name)))
            for module in model.modules()
            for name in _HOOKS
            if hasattr(module, name)
        ]
        self._flags = [(p, p.requires_grad, p.grad is None) for p in model.parameters()]

    def restore(self) -> None:
        """Put everything back."""
        for module, training in self._modes:
            module.training = training
        for module, name, hooks in self._hooks:
            _restore_hooks(getattr(module, name), hooks)
        for parameter, requires_grad, had_no_grad in self._flags:
            _restore_parameter(parameter, requires_grad=requires_grad, had_no_grad=had_no_grad)


def _restore_hooks(now: dict[Any, Any], before: dict[Any, Any]) -> None:
    if dict(now) == before:
        return
    for key in [key for key in now if key not in before]:
        del now[key]
    missing = [key for key in before if key not in now]
    if missing:
        now.update({key: before[key] for key in missing})
        if isinstance(now, OrderedDict):
            for key in before:
                now.move_to_end(key)


def _restore_parameter(parameter: Parameter, *, requires_grad: bool, had_no_grad: bool) -> None:
    if parameter.requires_grad != requires_grad:
        parameter.requires_grad_(requires_grad)
    if had_no_grad:
        parameter.grad = None
