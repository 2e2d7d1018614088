"""torch-pruning: which channels a pruning kept, for `binding.rebind(model, state="slice", kept=...)`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Module


@contextmanager
def recording_kept(model: Module) -> Iterator[dict[str, dict[int, list[int]]]]:
    """Collect the kept channels of every parameter that torch-pruning cuts inside the block.

    Args:
        model: The model that is pruned, in any number of steps.

    Yields:
        A dict that is filled when the block ends: `{parameter name: {dimension: kept indices}}`, with the
        indices counted in the parameter as it was when the block began. Weights that were tied, and that
        torch-pruning has untied by then, are told each by its own name.

    Example:
        >>> with recording_kept(model) as kept:  # doctest: +SKIP
        ...     pruner.step()
        >>> binding.rebind(model, state="slice", kept=kept)  # doctest: +SKIP
    """
    from torch_pruning.pruner.function import BasePruningFunc

    # What was kept of each parameter that torch-pruning made, by its identity. It takes a tied weight once
    # for each of its layers, so that names can only be told by where the results are in the end.
    made: dict[int, dict[int, list[int]]] = {}
    # The parameters are held, so that no new one gets the identity of a dead one.
    seen: list[torch.Tensor] = list(model.parameters())
    kept: dict[str, dict[int, list[int]]] = {}
    original = BasePruningFunc._prune_parameter_and_grad

    def pruning(self: Any, weight: torch.Tensor, keep_idxs: Sequence[int], pruning_dim: int) -> torch.Tensor:
        pruned: torch.Tensor = original(self, weight, keep_idxs, pruning_dim)
        dimension = pruning_dim % weight.dim()
        so_far = made.get(id(weight), {})
        before = so_far.get(dimension, range(weight.shape[dimension]))
        made[id(pruned)] = {**so_far, dimension: [before[index] for index in keep_idxs]}
        seen.append(pruned)
        return pruned

    BasePruningFunc._prune_parameter_and_grad = pruning
    try:
        yield kept
    finally:
        BasePruningFunc._prune_parameter_and_grad = original
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if id(parameter) in made:
                kept[name] = made[id(parameter)]
