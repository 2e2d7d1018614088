"""Giving a model back as it was: training modes, flags, gradients and hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from torch.nn import Module, Parameter

from .inventory import Inventory

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

    Args:
        inventory: The model.
        earlier: What some of its modules and parameters were like before. Their modes and flags of then
            are put back, and their hooks of now: surgery may have added those.
    """

    def __init__(self, inventory: Inventory, earlier: Pristine | None = None) -> None:
        self._modes = {module: module.training for module in inventory.modules}
        self._hooks = _hooks_of(inventory.modules)
        self._flags = {p: (p.requires_grad, p.grad is None) for p in inventory.parameters.values()}
        if earlier is not None:
            self._modes.update({m: mode for m, mode in earlier._modes.items() if m in self._modes})
            self._flags.update({p: flags for p, flags in earlier._flags.items() if p in self._flags})

    def restore(self, except_for: Pristine | None = None) -> None:
        """Put everything back, except for the modules and parameters that another one puts back."""
        modes = except_for._modes if except_for is not None else {}
        flags = except_for._flags if except_for is not None else {}
        for module, training in self._modes.items():
            if module not in modes:
                module.training = training
                _restore_hooks(module, self._hooks.get(module, {}))
        for parameter, (requires_grad, had_no_grad) in self._flags.items():
            if parameter not in flags:
                _restore_parameter(parameter, requires_grad=requires_grad, had_no_grad=had_no_grad)


def _hooks_of(modules: Iterable[Module]) -> dict[Module, dict[str, dict[Any, Any]]]:
    """Copy what hooks there are. Most modules have none, and this runs for each of them at every binding."""
    found: dict[Module, dict[str, dict[Any, Any]]] = {}
    for module in modules:
        state = module.__dict__
        if any([state.get(name) for name in _HOOKS]):  # noqa: C419 - a list is faster than a generator here
            found[module] = {name: dict(state[name]) for name in _HOOKS if state.get(name)}
    return found


def _restore_hooks(module: Module, before: dict[str, dict[Any, Any]]) -> None:
    for name in _HOOKS:
        now = module.__dict__.get(name)
        if now is not None and (now or name in before):
            _restore_hook_dict(now, before.get(name, {}))


def _restore_hook_dict(now: dict[Any, Any], before: dict[Any, Any]) -> None:
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
