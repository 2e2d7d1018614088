"""From the parameters among recorded arguments to their names in the model."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable

import torch
from torch.nn import Module

from ..values import UNRESOLVED


class Names:
    """The names of a model's parameters and modules, by identity.

    Attributes:
        root: The module that the names start from, or None where nothing told it.
        given: Whether the caller named the model, so that everything must be in it.
        live: For every name that was asked for, the parameter it stood for.
    """

    def __init__(self, root: Module | None, *, given: bool) -> None:
        self.root: weakref.ref[Module] | None = None if root is None else weakref.ref(root)
        self.given = given
        self.live: dict[str, weakref.ref[torch.Tensor]] = {}
        self._names: dict[int, list[str]] = {}
        self._places: dict[str, int] = {}
        self._modules: dict[int, str] = {}
        if root is not None:
            for place, (name, tensor) in enumerate(root.named_parameters(remove_duplicate=False)):
                self._names.setdefault(id(tensor), []).append(name)
                self._places[name] = place
            if given:
                for name, buffer in root.named_buffers():
                    self._names.setdefault(id(buffer), []).append(name)
            self._modules = {id(module): name for name, module in root.named_modules()}

    def learn(self, tensor: torch.Tensor, name: str) -> None:
        """Take a name that the optimizer itself was given for a parameter, where no module tells one."""
        if self.root is None:
            self._names.setdefault(id(tensor), [name])

    def of(self, tensor: torch.Tensor) -> tuple[str, ...]:
        """Give the name of a parameter, then its further names; a numbered stand-in if it has none."""
        found = self._names.get(id(tensor))
        if found is None:
            found = self._names[id(tensor)] = [f"{UNRESOLVED}{len(self.live)}"]
        if found[0] not in self.live:
            self.live[found[0]] = weakref.ref(tensor)
        return tuple(found)

    def knows(self, tensor: torch.Tensor) -> bool:
        """Tell whether a name of this tensor is known."""
        found = self._names.get(id(tensor))
        return found is not None and not found[0].startswith(UNRESOLVED)

    def of_module(self, module: Module) -> str | None:
        """Give the path of a module from the root, empty for the root itself, or None."""
        return self._modules.get(id(module))

    def in_order(self, names: Iterable[str]) -> bool:
        """Tell whether these names stand in the order of the model's own `parameters()`."""
        places = [self._places.get(name, -1) for name in names]
        return min(places, default=-1) >= 0 and places == sorted(places)


def outermost(modules: Iterable[Module]) -> Module | None:
    """Give the one module that holds all the others, or None where there is none."""
    distinct = list({id(module): module for module in modules}.values())
    for candidate in distinct:
        inside = {id(module) for module in candidate.modules()}
        if all(id(module) in inside for module in distinct):
            return candidate
    return None


def holders_of(module: Module) -> list[Module]:
    """Find the modules that hold a module as a child. Costs about 10 ms: it asks the garbage collector."""
    holders = []
    for children in gc.get_referrers(module):
        if not isinstance(children, dict):
            continue
        for owner in gc.get_referrers(children):
            state = owner if isinstance(owner, dict) else getattr(owner, "__dict__", {})
            if state.get("_modules") is children:
                holders += [m for m in (owner, *gc.get_referrers(state)) if isinstance(m, Module)]
    return list({id(holder): holder for holder in holders}.values())
