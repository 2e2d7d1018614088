"""The optimizer state of a parameter, cut down to the channels that are left of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from ...evaluator_schema.errors import BindError
from ..naming.placing import whole

# Kept indices by dimension.
Selection = Mapping[int, torch.Tensor]

# State of torch's optimizers that has an element for each element of the parameter.
_ELEMENTWISE = frozenset(
    {
        "momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "acc_delta",
        "grad_avg", "sum", "ax", "prev", "step_size", "variance",
    }
)  # fmt: skip


def shape_before(parameter: torch.Tensor, state: Mapping[str, Any]) -> torch.Size:
    """Give the shape that a parameter had when its state was made; it may have been cut in place since."""
    for key, value in state.items():
        if key in _ELEMENTWISE and isinstance(value, torch.Tensor) and value.dim() == parameter.dim():
            return value.shape
    return parameter.shape


def slicable(state: Mapping[str, Any], shape: torch.Size) -> list[torch.Tensor]:
    """List the state tensors of the parameter's shape; none if there is state of another shape, too."""
    shaped = [value for value in state.values() if not _is_whole(value)]
    return shaped if all(isinstance(v, torch.Tensor) and v.shape == shape for v in shaped) else []


def has_shape(state: Mapping[str, Any]) -> bool:
    """Tell whether any of the state depends on the parameter's shape."""
    return any(not _is_whole(value) for value in state.values())


def sliced(name: str, state: Mapping[str, Any], shape: torch.Size, selection: Selection) -> dict[str, Any]:
    """Slice each state tensor of a parameter for what was kept of it.

    A tensor of the parameter's shape loses the same channels. So does one that has size 1 in some
    dimensions and the parameter's size in the others (Adafactor's `row_var` and `col_var`): it is sliced
    in the latter. What has no shape (step counters, Rprop's and ASGD's scalars) is copied.

    Args:
        name: The parameter, for messages.
        state: Its state.
        shape: Its shape before.
        selection: What was kept of each dimension that lost something.

    Raises:
        BindError: Some state is of another shape.
    """
    return {key: _sliced(name, key, value, shape, selection) for key, value in state.items()}


def _sliced(name: str, key: str, value: Any, shape: torch.Size, selection: Selection) -> Any:
    if _is_whole(value):
        return copy.deepcopy(value)
    fits = isinstance(value, torch.Tensor) and value.dim() == len(shape)
    if not fits or any(n not in (1, size) for n, size in zip(value.shape, shape, strict=True)):
        what = f"of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise BindError(
            f"state='slice': the optimizer's {key!r} of {name!r} ({what}) has no slice for the kept channels "
            f"of a parameter of shape {tuple(shape)}; rebind with state='carry', which lets it start anew"
        )
    value = whole(value)
    for dimension, indices in selection.items():
        if value.shape[dimension] == shape[dimension]:
            value = value.detach().index_select(dimension, indices.to(value.device))
    return value


def _is_whole(value: Any) -> bool:
    """Tell whether a piece of state has no shape."""
    if isinstance(value, torch.Tensor):
        return value.dim() == 0
    return value is None or isinstance(value, int | float | complex | str | bool)
