"""Functions that payloads call by name. Files of all ages refer to them: none is ever renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch
from torch import Tensor, TypedStorage, UntypedStorage

if TYPE_CHECKING:
    from collections.abc import Callable

# A storage, and an offset in it in bytes. It stands in the payload as a persistent id.
Place: TypeAlias = tuple[UntypedStorage, int]

_QUANTIZED: Final = {torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}


def tensor(  # noqa: PLR0917 - positional in payloads
    place: Place,
    dtype: str,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool = False,  # noqa: FBT001, FBT002 - positional in payloads
    is_conj: bool = False,  # noqa: FBT001, FBT002 - a pickle calls it
    is_neg: bool = False,  # noqa: FBT001, FBT002 - a pickle calls it
) -> Tensor:
    """A strided tensor over memory that is there already.

    Args:
        place: Where its first element lies.
        dtype: As torch names it: `float32`.
        shape: Its sizes.
        stride: Its strides, in elements.
        requires_grad: Whether it is a leaf that wants gradients.
        is_conj: Whether it stands for the conjugate of its memory.
        is_neg: Whether it stands for the negative of its memory.

    Raises:
        TypeError: There is no such dtype, or it is one of quantized tensors, which are not written so.
        ValueError: The memory is too small for it.
    """
    storage, offset = place
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise TypeError(f"torch {torch.__version__} has no dtype {dtype!r}")
    if kind in _QUANTIZED:
        raise TypeError(f"{dtype} numbers without a quantizer are no tensor; torch fails when it is used")
    if len(shape) != len(stride) or offset % kind.itemsize:
        raise ValueError("shape, strides and offset do not fit together")
    last = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if 0 not in shape and offset + (last + 1) * kind.itemsize > storage.nbytes():
        raise ValueError(f"{list(shape)} elements of {dtype} do not fit into the memory")
    result = torch.empty(0, dtype=kind, device=storage.device)
    result.set_(storage, offset // kind.itemsize, shape, stride)
    if is_conj:
        torch._C._set_conj(result, True)  # noqa: FBT003 - as torch.load does it
    if is_neg:
        torch._C._set_neg(result, True)  # noqa: FBT003 - it takes no keyword
    return result.requires_grad_(requires_grad)


def with_attributes(
    make: Callable[..., Tensor], cls: type[Tensor], arguments: tuple[Any, ...], state: Any
) -> Tensor:
    """A tensor with the attributes that its user had set on it."""
    result: Tensor = torch._tensor._rebuild_from_type_v2(make, cls, arguments, state)  # type: ignore[no-untyped-call]
    return result


def storage(place: Place, dtype: str | None) -> UntypedStorage | TypedStorage:
    """A whole storage, typed if there is a dtype."""
    untyped, _ = place
    if dtype is None:
        return untyped
    kind = getattr(torch, dtype)
    return TypedStorage(wrap_storage=untyped, dtype=kind, _internal=True)  # type: ignore[no-untyped-call]
