"""Putting adopted constructions, which nobody saw being built, where their users can find them."""

from __future__ import annotations

from typing import Any

from ..construction import Construction, GroupChange, all_constructions
from ..values import Ref, leaf_values, map_container


def place_adopted(optimizers: Any, lr_schedulers: Any) -> tuple[Any, Any]:
    """Renumber constructions so that each adopted one is built before whatever takes it as an argument.

    Capture puts adopted schedulers behind everything that was traced; one that a traced scheduler was
    built from has to come before that.
    """
    everything = all_constructions([optimizers, lr_schedulers])
    if all(found.location is not None for found in everything):
        return optimizers, lr_schedulers
    by_order = {found.order: found for found in everything}
    users: dict[int, list[int]] = {}
    for found in everything:
        for leaf in leaf_values([found.args, found.kwargs]):
            if isinstance(leaf, Ref | Construction):
                users.setdefault(leaf.order, []).append(found.order)
    step = 1 / (len(everything) + 2)

    def moment(order: int) -> float:
        if by_order[order].location is not None:
            return order
        return min([order, *(moment(user) - step for user in users.get(order, ()))])

    moments = {order: moment(order) for order in by_order}
    moments.update({change.order: change.order for found in everything for change in found.changes})
    ranks = {order: rank for rank, order in enumerate(sorted(moments, key=lambda o: (moments[o], o)))}
    return _renumbered(optimizers, ranks), _renumbered(lr_schedulers, ranks)


def _renumbered(value: Any, ranks: dict[int, int]) -> Any:
    if isinstance(value, Ref):
        return Ref(ranks.get(value.order, value.order))
    if isinstance(value, Construction):
        return value.model_copy(
            update={
                "args": _renumbered(value.args, ranks),
                "kwargs": _renumbered(value.kwargs, ranks),
                "order": ranks[value.order],
                "changes": tuple(_moved(change, ranks) for change in value.changes),
            }
        )
    return map_container(value, lambda item: _renumbered(item, ranks))


def _moved(change: GroupChange, ranks: dict[int, int]) -> GroupChange:
    return change.model_copy(update={"order": ranks[change.order]})
