"""New parameters that join the optimizers of a bound model, and leave them again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Module
from torch.optim import LBFGS, Adagrad, Muon, Optimizer

from ...evaluator_schema.errors import BindError
from ..naming.canonical import canonical
from ..naming.matching import Match
from ..naming.suggesting import nearest
from ..patching.handles import Revertible

# {module or parameter name: the tensors that join}
Additions = Mapping[str, Iterable[torch.Tensor]]


@dataclass(frozen=True)
class Place:
    """A parameter group: the optimizer's place among the optimizers, and the group's place in it."""

    optimizer: int
    group: int


@dataclass(frozen=True)
class Joining:
    """One tensor on its way into a group."""

    tensor: torch.Tensor
    name: str
    place: Place


class Joined(Revertible):
    """Parameters that joined; `revert()` takes them out again, and so does leaving the block.

    Attributes:
        joined: What joined. Tensors that were being optimized already are not among them.
    """

    def __init__(self, joined: Iterable[Joining], forget: Callable[[Joined], None]) -> None:
        self.joined: tuple[Joining, ...] = tuple(joined)
        self._forget = forget
        self._without_grad = [item.tensor for item in self.joined if item.tensor.grad is None]

    def revert(self) -> None:
        """Take the parameters out of their groups, with their optimizer state. A second time does nothing."""
        self._forget(self)
        for tensor in self._without_grad:
            tensor.grad = None
        self._without_grad = []


def plan(additions: Additions, optimizers: Sequence[Optimizer], match: Match) -> list[Joining]:
    """Decide where each tensor joins, without changing anything.

    Raises:
        BindError: A name is not in the model, nothing of a module is optimized, or a tensor cannot be.
    """
    places = {
        id(tensor): Place(i, j)
        for i, optimizer in enumerate(optimizers)
        for j, group in enumerate(optimizer.param_groups)
        for tensor in group["params"]
    }
    taken = set(places)
    named = {n for o in optimizers for group in o.param_groups for n in group.get("param_names", ())}
    planned: list[Joining] = []
    for name, tensors in additions.items():
        if isinstance(tensors, torch.Tensor):  # a tensor is iterable, and its rows are no parameters
            raise BindError(f"add_parameters: {name!r} needs a list of tensors, not one; write [tensor]")
        place = _place_of(name, match, places)
        optimizer = optimizers[place.optimizer]
        for number, tensor in enumerate(tensors):
            _check(f"{name!r}, tensor {number}", tensor, optimizer)
            if id(tensor) not in taken:
                taken.add(id(tensor))
                known = match.inventory.names.get(id(tensor)) or _current_name(match.inventory.model, tensor)
                new_name = known[0] if known else _free_name(name, named)
                named.add(new_name)
                planned.append(Joining(tensor, new_name, place))
    return planned


def join(planned: Iterable[Joining], optimizers: Sequence[Optimizer]) -> None:
    """Put tensors into their groups. Their options, and the schedulers', are those of the group."""
    for item in planned:
        optimizer = optimizers[item.place.optimizer]
        group = optimizer.param_groups[item.place.group]
        group["params"].append(item.tensor)
        if "param_names" in group:
            group["param_names"].append(item.name)
        if isinstance(optimizer, Adagrad):
            optimizer.state[item.tensor] = _sums_of(item.tensor, group, optimizer)
        if isinstance(optimizer, LBFGS):
            optimizer._numel_cache = None


def leave(joined: Iterable[Joining], optimizers: Sequence[Optimizer]) -> None:
    """Take tensors out of their groups, and forget their state."""
    for item in joined:
        optimizer = optimizers[item.place.optimizer]
        group = optimizer.param_groups[item.place.group]
        places = [i for i, tensor in enumerate(group["params"]) if tensor is item.tensor]
        for i in reversed(places):
            del group["params"][i]
            if "param_names" in group:
                del group["param_names"][i]
        optimizer.state.pop(item.tensor, None)
        if isinstance(optimizer, LBFGS):
            # Its history has an element for each element of the parameters that it had.
            optimizer._numel_cache = None
            optimizer.state.clear()


def _place_of(name: str, match: Match, places: Mapping[int, Place]) -> Place:
    parameters = match.parameters
    if name in parameters or name in match.found:
        own = [name] if name in parameters else list(match.found[name])
        found = next((places[id(parameters[n])] for n in own if id(parameters[n]) in places), None)
        if found is None:
            raise BindError(
                f"add_parameters: the parameter {name!r} is in no optimizer, so there is no group to join"
            )
        return found
    path, module = _module(name, match.inventory.model)
    ours = [*module.parameters(recurse=False), *module.parameters()]
    prefix = f"{path}." if path else ""
    # What surgery took out of the module is still in the optimizer, under the name it had.
    former = [tensor for n, tensor in parameters.items() if n.startswith(prefix)]
    for tensor in (*ours, *former):
        if id(tensor) in places:
            return places[id(tensor)]
    raise BindError(
        f"add_parameters: no parameter of the module {name!r} is in an optimizer, so there is no group to "
        "join; name a parameter that is"
    )


def _module(name: str, model: Module) -> tuple[str, Module]:
    modules = dict(model.named_modules(remove_duplicate=False))
    if name in modules:
        return name, modules[name]
    wanted = canonical(f"{name}.weight")
    alike = [
        (path, module) for path, module in modules.items() if path and canonical(f"{path}.weight") == wanted
    ]
    if not alike:
        near = nearest(name, [*modules, *(n for n, _ in model.named_parameters())])
        raise BindError(f"add_parameters: the model has no module or parameter {name!r}{near}")
    return alike[-1]


def _check(where: str, tensor: Any, optimizer: Optimizer) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise BindError(f"add_parameters: {where} is a {type(tensor).__name__}, not a tensor")
    if not tensor.is_leaf:
        raise BindError(
            f"add_parameters: {where} is computed from others; only leaf tensors can be optimized"
        )
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise BindError(f"add_parameters: {where} is of {tensor.dtype}, which has no gradient")
    if isinstance(optimizer, Muon) and tensor.dim() != 2:
        raise BindError(
            f"add_parameters: {where} has {tensor.dim()} dimensions, and Muon optimizes matrices only"
        )
    if isinstance(optimizer, LBFGS) and optimizer.state:
        raise BindError(
            f"add_parameters: {where} would join LBFGS, whose history so far knows nothing of it; add it "
            "before training"
        )


def _free_name(name: str, named: set[str]) -> str:
    return next(new for new in (f"{name}+{number}" for number in itertools.count()) if new not in named)


def _current_name(model: Module, tensor: torch.Tensor) -> tuple[str, ...]:
    return tuple(name for name, parameter in model.named_parameters() if parameter is tensor)


def _sums_of(tensor: torch.Tensor, group: dict[str, Any], optimizer: Adagrad) -> dict[str, torch.Tensor]:
    """Give the state that Adagrad gives its parameters when it is built, and to none that joins later."""
    stand_in = torch.nn.Parameter(tensor.detach())
    built = type(optimizer)(
        [stand_in],
        initial_accumulator_value=group["initial_accumulator_value"],
        fused=group["fused"],
        foreach=group["foreach"],
    )
    return dict(built.state[stand_in])
