"""Giving a model back as it was: training modes, flags, gradients and hooks."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from torch.nn import Module, Parameter

from ..naming.inventory import Inventory
from ..patching.observing import forget_backward_kind
from .modes import exported_modes, switch

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

    A hook that came since is taken away, whoever put it there, with one exception. A module that got or lost
    parameters, buffers or submodules of its own went through surgery (a pruning mask came, or was made
    permanent), as did one that is of another class by now (`fully_shard` sees to that), and its forward hooks
    are part of that: it keeps those it has. What a binding itself hooked in is gone by then in any case.

    Args:
        inventory: The model.
        earlier: What some of its modules and parameters were like before. Their modes and flags of then
            are put back, and their hooks of now: surgery may have added those.
    """

    def __init__(self, inventory: Inventory, earlier: Pristine | None = None) -> None:
        self._modules = inventory.modules
        self._modes = list(map(_MODE, self._modules))
        self._exported = exported_modes(self._modules)
        self._hooks = _hooks_of(self._modules)
        self._anatomy = list(map(_anatomy, self._modules))
        self._parameters = list(inventory.parameters.values())
        self._flags = list(map(_REQUIRES_GRAD, self._parameters))
        self._grads = [gradient is not None for gradient in map(_GRAD, self._parameters)]
        if earlier is not None:
            self._remember(earlier)

    def restore(self, except_for: Pristine | None = None) -> None:
        """Put everything back, except for the modules and parameters that another one puts back."""
        left_out = except_for._identities() if except_for is not None else set()
        for module, training, anatomy in zip(self._modules, self._modes, self._anatomy, strict=True):
            if id(module) not in left_out:
                module.training = training
                if anatomy == _anatomy(module):
                    _restore_hooks(module, self._hooks.get(module, {}))
        for module, mode in self._exported:
            if id(module) not in left_out:
                switch(module, mode)
        for parameter, flag, had_grad in zip(self._parameters, self._flags, self._grads, strict=True):
            if id(parameter) not in left_out:
                _restore_parameter(parameter, requires_grad=flag, had_grad=had_grad)

    def _remember(self, earlier: Pristine) -> None:
        modes = dict(zip(map(id, earlier._modules), earlier._modes, strict=True))
        self._modes = [modes.get(id(m), mode) for m, mode in zip(self._modules, self._modes, strict=True)]
        exported = {id(module): mode for module, mode in earlier._exported}
        self._exported = [(module, exported.get(id(module), mode)) for module, mode in self._exported]
        flags = dict(zip(map(id, earlier._parameters), earlier._flags, strict=True))
        self._flags = [flags.get(id(p), flag) for p, flag in zip(self._parameters, self._flags, strict=True)]
        grads = dict(zip(map(id, earlier._parameters), earlier._grads, strict=True))
        self._grads = [grads.get(id(p), had) for p, had in zip(self._parameters, self._grads, strict=True)]

    def _identities(self) -> set[int]:
        return {*map(id, self._modules), *map(id, self._parameters)}


# A walk over 10,000 parameters is to cost little at every binding, so it runs in C.
_MODE = operator.attrgetter("training")
_REQUIRES_GRAD = operator.attrgetter("requires_grad")
_GRAD = operator.attrgetter("grad")
_HOOKS_IN = operator.itemgetter(*_HOOKS)


def _anatomy(module: Module) -> tuple[object, ...]:
    return type(module), tuple(module._parameters), tuple(module._buffers), tuple(module._modules)


def _hooks_of(modules: Iterable[Module]) -> dict[Module, dict[str, dict[Any, Any]]]:
    """Copy what hooks there are. Most modules have none."""
    found: dict[Module, dict[str, dict[Any, Any]]] = {}
    for module in modules:
        try:
            hooks = _HOOKS_IN(module.__dict__)
        except KeyError:  # a module that was loaded from an older torch
            hooks = tuple(module.__dict__.get(name) for name in _HOOKS)
        if any(hooks):
            found[module] = {name: dict(held) for name, held in zip(_HOOKS, hooks, strict=True) if held}
    return found


def _restore_hooks(module: Module, before: dict[str, dict[Any, Any]]) -> None:
    for name in _HOOKS:
        now = module.__dict__.get(name)
        if now is not None and (now or name in before):
            _restore_hook_dict(now, before.get(name, {}))
    if module._is_full_backward_hook is not None and "_backward_hooks" not in before:
        forget_backward_kind(module)


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


def _restore_parameter(parameter: Parameter, *, requires_grad: bool, had_grad: bool) -> None:
    if parameter.requires_grad != requires_grad:
        parameter.requires_grad_(requires_grad)
    if not had_grad:
        parameter.grad = None
