"""Where the parameters are that optimizers train which the user's own code has built."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...evaluator_schema.errors import BindError, MissingParametersError
from ..naming.inventory import Inventory
from ..naming.matching import Match, match
from ..naming.renaming import Rename


def match_optimized(
    optimizers: Iterable[Any],
    inventory: Inventory,
    rename: Rename | None,
    current: Match | None,
    *,
    builder: str,
) -> Match:
    """Tell where the optimized parameters are, under the names by which they were known so far.

    Args:
        optimizers: The optimizers.
        inventory: The model that is bound.
        rename: From the names in the model that was bound so far, to carry state.
        current: Where the parameters were in that model; None where none was bound.
        builder: What builds the optimizers, and how to have them recorded instead, for people.

    Raises:
        BindError: Names were to be changed, and none were recorded.
    """
    optimized = [p for one in optimizers for group in one.param_groups for p in group["params"]]
    names = [inventory.names[id(p)][0] for p in optimized if id(p) in inventory.names]
    own: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    if current is None:
        if rename is not None:
            raise BindError(f"rename= is for recorded optimizers, and here {builder}")
        return Match(own, inventory)
    try:
        former = match(
            current.recorded, inventory, rename=rename, missing="ignore", former=current.found
        ).found
    except MissingParametersError:  # a model of another kind, which carries nothing
        return Match(own, inventory)
    found = {old: tuple(n for n in new if n in own) for old, new in former.items()}
    found = {old: new for old, new in found.items() if new}
    known = {name for new in found.values() for name in new}
    found.update({name: (name,) for name in own if name not in known})
    return Match(dict.fromkeys(found, ()), inventory, found)
