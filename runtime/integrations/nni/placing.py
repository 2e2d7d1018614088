"""Which parameter group new parameters join when NNI names only a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from ....evaluator_schema.errors import BindError
from ...binding.binding import Binding
from ...naming.canonical import canonical


def places(
    binding: Binding, additions: Mapping[str, Sequence[Tensor]]
) -> Iterator[tuple[str, Sequence[Tensor]]]:
    """Name for each module a parameter whose group NNI would choose.

    Source: `Evaluator._optimizer_add_param_group` of NNI 3.0, which takes the first group that has a
    parameter of the module itself, and the first group of the first optimizer where none has. Between the two
    we look for one of a module inside.

    Args:
        binding: The binding.
        additions: The tensors by module name; `""` is the model itself.

    Yields:
        The name of a parameter that is optimized, with the tensors.

    Raises:
        BindError: No optimizer has a parameter of the model.
    """
    names = {id(parameter): name for name, parameter in binding.model.named_parameters()}
    optimized = [
        names[id(tensor)]
        for optimizer in binding.optimizers
        for group in optimizer.param_groups
        for tensor in group["params"]
        if id(tensor) in names
    ]
    if not optimized:
        raise BindError("patch_optim_param_group: no optimizer has a parameter of this model to join")
    for module, tensors in additions.items():
        path = canonical(f"{module}.weight").removesuffix("weight") if module else ""
        own = [name for name in optimized if canonical(name).rpartition(".")[0] == path.rstrip(".")]
        inside = [name for name in optimized if canonical(name).startswith(path)]
        yield (own or inside or optimized)[0], tensors
