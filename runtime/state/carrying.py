"""What optimizers and schedulers have learned, carried from one model to its successor."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer

from ...evaluator_schema.errors import BindError
from ..naming.canonical import is_split
from ..naming.inventory import Inventory
from ..naming.matching import Match
from ..naming.placing import placed
from .kept import Kept, check_known, check_shape, proven, told
from .slicing import Selection, has_shape, shape_before, slicable, sliced


@dataclass(frozen=True)
class Successor:
    """A parameter of the new model that goes on where one of the old model stood.

    Attributes:
        name: Its name in the new model.
        known_as: The names by which the caller may mean it.
        tensor: The parameter itself.
    """

    name: str
    known_as: tuple[str, ...]
    tensor: torch.Tensor


@dataclass
class Carried:
    """Names in the new model of the parameters whose state went with them."""

    whole: list[str] = field(default_factory=list)
    sliced: list[str] = field(default_factory=list)


class Carrier:
    """Carries state from the optimizers and schedulers of one model to those of another.

    Nothing of the old ones is changed, and no tensor is shared with them.

    Args:
        old: Where the recorded parameters were in the old model.
        new: Where they are in the new one.
        slices: Whether parameters that lost channels keep the state of those that are left; otherwise
            they start anew.
        kept: The kept channels, where their values do not prove them.
        staying: Tensors by name that the old and the new optimizers have in common.
    """

    def __init__(
        self,
        old: Match,
        new: Match,
        *,
        slices: bool,
        kept: Kept | None,
        staying: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self._successors = _successors(old, new)
        for name, tensor in (staying or {}).items():
            self._successors.setdefault(id(tensor), [Successor(name, (name,), tensor)])
        self._slices = slices
        self._kept = kept or {}
        check_known(self._kept, {*old.found, *old.parameters, *new.parameters})
        self.carried: Carried = Carried()

    def carry(
        self,
        old_optimizers: Sequence[Optimizer],
        new_optimizers: Sequence[Optimizer],
        old_schedulers: Sequence[Any],
        new_schedulers: Sequence[Any],
    ) -> None:
        """Carry everything.

        Raises:
            BindError: Some state cannot be carried exactly.
        """
        memo = {id(o): n for o, n in zip(old_optimizers, new_optimizers, strict=True)}
        for index, (old, new) in enumerate(zip(old_optimizers, new_optimizers, strict=True)):
            _carry_groups(index, old, new, memo)
            if isinstance(old, LBFGS):
                self._carry_history(index, old, new)
            else:
                self._carry_state(old, new, memo)
            _carry_attributes(old, new)
        for index, (old_scheduler, new_scheduler) in enumerate(
            zip(old_schedulers, new_schedulers, strict=True)
        ):
            _carry_progress(index, old_scheduler, new_scheduler, memo)

    def _carry_state(self, old: Optimizer, new: Optimizer, memo: dict[int, Any]) -> None:
        entries: Mapping[Any, Any] = old.state
        for key, state in entries.items():
            if not isinstance(key, torch.Tensor):  # optimizers outside torch keep some under plain keys
                new.state[key] = copy.deepcopy(state, dict(memo))
                continue
            for successor in self._successors.get(id(key), ()):
                moved = self._moved(key, state, successor)
                if moved is not None:
                    new.state[successor.tensor] = _placed(moved, key, successor.tensor)

    def _moved(self, old: torch.Tensor, state: Mapping[str, Any], new: Successor) -> dict[str, Any] | None:
        """Give the state that a successor starts with; None if it starts anew."""
        before, after = shape_before(old, state), new.tensor.shape
        known = next((self._kept[name] for name in new.known_as if name in self._kept), None)
        if before == after and known is None:
            self.carried.whole.append(new.name)
            return dict(state)
        if not self._slices:
            return None
        selection: Selection = {}
        if known is not None:
            selection = told(new.name, known, before)
            check_shape(new.name, before, after, selection)
        elif has_shape(state):
            selection = proven(new.name, old, new.tensor, slicable(state, before))
        self.carried.sliced.append(new.name)
        return sliced(new.name, state, before, selection)

    def _carry_history(self, index: int, old: LBFGS, new: Optimizer) -> None:
        """Carry LBFGS's history, which is one flat vector over all of its parameters."""
        if not old.state:
            return
        before = [parameter for group in old.param_groups for parameter in group["params"]]
        after = [parameter for group in new.param_groups for parameter in group["params"]]
        followed = [self._successors.get(id(parameter), ()) for parameter in before]
        same = [s[0].tensor for s in followed if len(s) == 1]
        if not len(same) == len(before) == len(after) or any(
            s is not a or b.shape != a.shape for s, a, b in zip(same, after, before, strict=True)
        ):
            raise BindError(
                f"optimizer {index}: LBFGS keeps one history over all of its parameters, and some of them "
                "changed; rebind with state='fresh'"
            )
        for state in old.state.values():
            new.state[after[0]] = _placed(state, before[0], after[0])
        self.carried.whole += [successor.name for found in followed for successor in found]


def _successors(old: Match, new: Match) -> dict[int, list[Successor]]:
    """Pair the parameters of two models, by the identity of the old ones.

    A tied weight that was untied goes on in each of its halves. A weight that weight_norm split is
    something else then, and so is one that two were merged into: those start anew. What a training function
    has put in the place of a parameter, in the model and in the optimizer, goes on like that parameter.
    """
    origins: dict[int, set[int]] = {}
    pairs: list[tuple[torch.Tensor, Successor]] = []
    for name, before in old.found.items():
        after = new.found.get(name, ())
        steps: list[tuple[str, tuple[str, ...]]]
        if len(before) > 1 and len(before) == len(after):
            steps = [(b, (a,)) for b, a in zip(before, after, strict=True)]
        elif len(before) == 1 and not is_split(after):
            steps = [(before[0], after)]
        else:
            continue
        for old_name, new_names in steps:
            parameter = old.parameters[old_name]
            for new_name in new_names:
                tensor = new.parameters[new_name]
                origins.setdefault(id(tensor), set()).add(id(parameter))
                # Halves that were tied are told apart by their own names.
                known_as = (new_name, old_name, name) if len(after) > 1 else (name, new_name, old_name)
                pairs.append((parameter, Successor(new_name, known_as, tensor)))
    found: dict[int, list[Successor]] = {}
    for old_parameter, successor in pairs:
        followers = found.setdefault(id(old_parameter), [])
        alone = len(origins[id(successor.tensor)]) == 1
        if alone and not any(other.tensor is successor.tensor for other in followers):
            followers.append(successor)
    recorded = set(map(id, old.parameters.values()))
    for name, tensor in Inventory(old.inventory.model).parameters.items():
        former = old.parameters.get(name)
        # What was recorded under another name has only slid into the place of one that is gone.
        if former is not None and id(tensor) not in recorded and id(former) in found:
            found.setdefault(id(tensor), found[id(former)])
    return found


def _placed(state: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """Copy state for another parameter, through lists and dicts."""
    if isinstance(state, torch.Tensor):
        return placed(state, old, new)
    if isinstance(state, dict):
        return {key: _placed(value, old, new) for key, value in state.items()}
    if isinstance(state, list):
        return [_placed(value, old, new) for value in state]
    return copy.deepcopy(state)


def _carry_groups(index: int, old: Optimizer, new: Optimizer, memo: dict[int, Any]) -> None:
    """Go on with the options of each group, as schedulers and the caller left them."""
    if len(old.param_groups) != len(new.param_groups):
        raise BindError(
            f"optimizer {index} has {len(old.param_groups)} parameter groups and was recorded with "
            f"{len(new.param_groups)}; join parameters with add_parameters, or rebind with state='fresh'"
        )
    for before, after in zip(old.param_groups, new.param_groups, strict=True):
        for key, value in before.items():
            if key not in ("params", "param_names"):
                after[key] = copy.deepcopy(value, dict(memo))


def _carry_attributes(old: Optimizer, new: Optimizer) -> None:
    """Carry the plain counters that optimizers outside torch may keep on themselves."""
    if type(old).__module__.startswith("torch.optim."):
        return
    for key, value in vars(old).items():
        if isinstance(value, int | float) and not key.startswith("_opt"):
            setattr(new, key, value)


def _carry_progress(index: int, old: Any, new: Any, memo: dict[int, Any]) -> None:
    try:
        # A scheduler that refers to its optimizer in its state must find the new one there.
        new.load_state_dict(copy.deepcopy(old.state_dict(), dict(memo)))
    except Exception as error:
        raise BindError(
            f"scheduler {index} ({type(old).__name__}) cannot go on with the state of its predecessor "
            f"({error}); rebind with state='fresh'"
        ) from error
