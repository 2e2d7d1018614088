"""One walk over a model: its modules, and its parameters by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch.nn import Module, Parameter


class Inventory:
    """What a model consists of at one moment.

    Attributes:
        model: The model.
        modules: All of its modules, each once, the outer before the inner.
        parameters: Its parameters by name in the model's own order, tied ones under each of their names, as
            `named_parameters(remove_duplicate=False)` gives them.
    """

    def __init__(self, model: Module) -> None:
        self.model = model
        self.modules: list[Module] = []
        self.parameters: Mapping[str, Parameter] = {}
        if not self._walk():
            self.modules = list(model.modules())
            self.parameters = dict(model.named_parameters(remove_duplicate=False))

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The place of each name in the model's order."""
        return {name: place for place, name in enumerate(self.parameters)}

    @cached_property
    def names(self) -> Mapping[int, tuple[str, ...]]:
        """All names of a parameter, by its identity."""
        names: dict[int, tuple[str, ...]] = {}
        for name, parameter in self.parameters.items():
            names[id(parameter)] = (*names.get(id(parameter), ()), name)
        return names

    def _walk(self) -> bool:
        """Walk in half the time of torch's own generators; False where a class has its own idea of it."""
        parameters: dict[str, Parameter] = {}
        modules: dict[Module, None] = {}
        classes: set[type[Module]] = set()
        pending = [("", self.model)]
        while pending:
            prefix, module = pending.pop()
            modules[module] = None
            classes.add(type(module))
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    parameters[prefix + name] = parameter
            if module._modules:
                children = [
                    (f"{prefix}{n}.", child) for n, child in module._modules.items() if child is not None
                ]
                children.reverse()
                pending += children
        if any(_walks_its_own_way(cls) for cls in classes):
            return False
        self.modules = list(modules)
        self.parameters = parameters
        return True


_WALKS = ("named_parameters", "named_modules", "_named_members", "__hash__", "__eq__")


def _walks_its_own_way(cls: type[Module]) -> bool:
    """Tell whether a class overrides what `named_parameters()` is made of (FSDP 1 and TorchScript do)."""
    return issubclass(cls, torch.jit.ScriptModule) or any(
        getattr(cls, name) is not getattr(Module, name) for name in _WALKS
    )
