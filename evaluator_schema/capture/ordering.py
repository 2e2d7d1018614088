"""Numbering what was captured from 0, so that equal code gives equal values."""

from __future__ import annotations

from typing import Any

import torch

from ..checking.problems import Invalid
from ..construction import Construction, all_constructions
from ..values import Ref, map_container


def renumbered(captured: list[Any]) -> list[Any]:
    """Copy captured values with their constructions, changes and references numbered by their order."""
    ranks = _ranks(captured)
    return [_reordered(value, ranks) for value in captured]


def _ranks(captured: list[Any]) -> dict[int, int]:
    orders: set[int] = set()
    for construction in all_constructions(captured):
        orders.add(construction.order)
        orders.update(change.order for change in construction.changes)
    return {order: rank for rank, order in enumerate(sorted(orders))}


def _reordered(value: Any, ranks: dict[int, int]) -> Any:
    if isinstance(value, Ref):
        return Ref(ranks.get(value.order, -1))  # -1: it could not be captured, which is told elsewhere
    if isinstance(value, Construction):
        return value.model_copy(
            update={
                "args": _reordered(value.args, ranks),
                "kwargs": _reordered(value.kwargs, ranks),
                "order": ranks[value.order],
                "changes": tuple(
                    change.model_copy(update={"order": ranks[change.order]}) for change in value.changes
                ),
            }
        )
    if isinstance(value, torch.Tensor | Invalid):
        return value
    return map_container(value, lambda item: _reordered(item, ranks))
