"""Which channels of a parameter were kept: as the caller tells it, or as the values prove it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ...evaluator_schema.errors import BindError
from ..naming.placing import whole
from ..naming.suggesting import nearest
from .slicing import Selection

# {parameter name: {dimension: kept indices}}
Kept = Mapping[str, Mapping[int, Sequence[int] | torch.Tensor]]


def told(name: str, kept: Mapping[int, Sequence[int] | torch.Tensor], before: torch.Size) -> Selection:
    """Read what the caller told about one parameter.

    Args:
        name: The parameter, for messages.
        kept: Indices, or a boolean mask, by dimension.
        before: The parameter's shape before.

    Raises:
        BindError: A dimension or an index is not there.
    """
    selection: dict[int, torch.Tensor] = {}
    for dimension, indices in kept.items():
        if not -len(before) <= dimension < len(before):
            raise BindError(f"kept: {name!r} of shape {tuple(before)} has no dimension {dimension}")
        chosen = torch.as_tensor(indices if isinstance(indices, torch.Tensor) else list(indices)).cpu()
        size = before[dimension]
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero().flatten() if chosen.shape == (size,) else torch.tensor([size])
        chosen = chosen.to(torch.int64)
        if chosen.dim() != 1 or bool(((chosen < 0) | (chosen >= size)).any()):
            raise BindError(
                f"kept: the indices of {name!r} in dimension {dimension} must be a list of numbers from 0 to "
                f"{size - 1}, or a mask of that length"
            )
        selection[dimension % len(before)] = chosen
    return selection


def check_shape(name: str, before: torch.Size, after: torch.Size, selection: Selection) -> None:
    """Make sure that a selection leads from one shape to the other.

    Raises:
        BindError: It does not.
    """
    result = [len(selection[d]) if d in selection else size for d, size in enumerate(before)]
    if result != list(after):
        raise BindError(
            f"kept: {name!r} had shape {tuple(before)}, what is kept of it has {tuple(result)}, and in the "
            f"model it has {tuple(after)}; give the kept indices of every dimension that changed"
        )


def check_known(kept: Kept, known: set[str]) -> None:
    """Make sure that the caller told of parameters that there are.

    Raises:
        BindError: One is in neither model.
    """
    for name in kept:
        if name not in known:
            raise BindError(f"kept: there is no parameter {name!r}{nearest(name, known)}")


def proven(name: str, old: torch.Tensor, new: torch.Tensor, state: Sequence[torch.Tensor] = ()) -> Selection:
    """Find what was kept of a parameter where its values leave no other choice.

    Args:
        name: The parameter, for messages.
        old: The parameter before; its values must be those of the moment of the surgery.
        new: What is left of it.
        state: What is to be sliced. Channels that are alike in value and state may stand for each other.

    Raises:
        BindError: `new` is no slice of `old`, or might be several.
    """
    before, after = whole(old.detach()).cpu(), whole(new.detach()).cpu()
    if before.dim() != after.dim() or any(n > o for n, o in zip(after.shape, before.shape, strict=True)):
        raise _unproven(name, old, new, "which is no slice of it")
    if old is new:
        raise _unproven(name, old, new, "and its former values are gone, since it was cut in place")
    changed = [d for d in range(before.dim()) if before.shape[d] != after.shape[d]]
    if len(changed) == 1:
        chosen = _matching_rows(before, after, changed[0], [whole(tensor.detach()).cpu() for tensor in state])
    else:
        chosen = {d: rows for d in changed if (rows := _owning_rows(before, after, d)) is not None}
    selected = before
    for dimension, indices in (chosen or {}).items():
        selected = selected.index_select(dimension, indices)
    if not chosen or not torch.equal(selected, after):
        raise _unproven(name, old, new, "and its values do not prove which channels were kept")
    return chosen


def _unproven(name: str, old: torch.Tensor, new: torch.Tensor, why: str) -> BindError:
    return BindError(
        f"state='slice': {name!r} had shape {tuple(old.shape)} and has {tuple(new.shape)}, {why}; pass "
        f"kept={{{name!r}: {{dimension: kept indices}}}}"
    )


def _rows(tensor: torch.Tensor, dimension: int) -> list[bytes]:
    """Give the slices along a dimension as bytes, which can be looked up."""
    table = tensor.movedim(dimension, 0).reshape(tensor.shape[dimension], -1).contiguous()
    return [row.tobytes() for row in table.view(torch.uint8).numpy()]


def _matching_rows(
    before: torch.Tensor, after: torch.Tensor, dimension: int, state: Sequence[torch.Tensor]
) -> dict[int, torch.Tensor] | None:
    """Find each row of `after` in `before`; rows with equal values must have equal state."""
    fates = list(zip(*(_rows(tensor, dimension) for tensor in state), strict=True)) if state else []
    places: dict[bytes, list[int]] = {}
    for place, row in enumerate(_rows(before, dimension)):
        places.setdefault(row, []).append(place)
    chosen = []
    for row in _rows(after, dimension):
        candidates = places.get(row, [])
        if not candidates or (fates and len({fates[place] for place in candidates}) > 1):
            return None
        if not fates and len(candidates) > 1:
            return None
        chosen.append(candidates.pop(0) if len(candidates) > 1 else candidates[0])
    return {dimension: torch.tensor(chosen)}


def _owning_rows(before: torch.Tensor, after: torch.Tensor, dimension: int) -> torch.Tensor | None:
    """Find each row of `after` by values that only one row of `before` has, wherever in it they stand."""
    old = before.movedim(dimension, 0).reshape(before.shape[dimension], -1)
    new = after.movedim(dimension, 0).reshape(after.shape[dimension], -1).contiguous()
    values, origin = old.flatten().sort()
    first = torch.searchsorted(values, new)
    unique = torch.searchsorted(values, new, right=True) - first == 1
    owners = origin[first.clamp(max=len(origin) - 1)] // old.shape[1]
    chosen = owners.masked_fill(~unique, -1).amax(dim=1)
    return None if bool((chosen < 0).any()) else chosen
