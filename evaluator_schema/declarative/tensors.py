"""A tensor as JSON: its type, its shape and its bytes."""

from __future__ import annotations

import base64
import ctypes
import math
from typing import Any

import torch

from .tagging import Context, NotDeclarativeError

# The types whose elements are whole bytes; quantized ones carry more than their bytes.
_DTYPES = {
    name: getattr(torch, name)
    for name in (
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16",
        "bfloat16", "float32", "float64", "complex32", "complex64", "complex128", "float8_e4m3fn",
        "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    )
    if hasattr(torch, name)
}  # fmt: skip


def name_of_dtype(dtype: torch.dtype) -> str:
    """Name a type as torch does, without its module."""
    return str(dtype).removeprefix("torch.")


def dtype_of_name(name: Any) -> torch.dtype:
    """Find a type by its name.

    Raises:
        ValueError: There is none.
    """
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype of torch")
    return dtype


def encode_tensor(tensor: torch.Tensor, context: Context) -> Any:
    """Write a tensor, or have it written beside the document."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
        raise NotDeclarativeError(f"JSON cannot carry a {type(tensor).__name__} of layout {tensor.layout}")
    if name_of_dtype(tensor.dtype) not in _DTYPES or tensor.is_meta:
        raise NotDeclarativeError(f"JSON cannot carry a tensor of {tensor.dtype} on {tensor.device}")
    writer = context.get("write_tensor")
    if writer is not None:
        return writer(tensor)
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    written: dict[str, Any] = {
        "dtype": name_of_dtype(tensor.dtype),
        "shape": list(tensor.shape),
        "data": base64.b64encode(ctypes.string_at(flat.data_ptr(), flat.nbytes)).decode(),
    }
    if tensor.requires_grad:
        written["requires_grad"] = True
    if type(tensor) is torch.nn.Parameter:
        written["parameter"] = True
    return written


def decode_tensor(held: Any, context: Context) -> torch.Tensor:
    """Read a tensor that `encode_tensor` wrote.

    Raises:
        ValueError: It is malformed.
    """
    reader = context.get("read_tensor")
    if isinstance(held, str) and reader is not None:
        tensor: torch.Tensor = reader(held)
        return tensor
    if not isinstance(held, dict) or not {"dtype", "shape", "data"} <= set(held):
        raise ValueError("a tensor needs dtype, shape and data")
    dtype = _DTYPES.get(held["dtype"]) if isinstance(held["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"{held['dtype']!r} is no dtype that JSON carries")
    shape, data = held["shape"], bytearray(base64.b64decode(held["data"], validate=True))
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"a shape is a list of sizes, not {shape!r}")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"a {held['dtype']} tensor of shape {shape} does not have {len(data)} bytes")
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    read = flat.reshape(shape)
    needs_gradient = bool(held.get("requires_grad", False))
    if held.get("parameter", False):
        return torch.nn.Parameter(read, requires_grad=needs_gradient)
    return read.requires_grad_(needs_gradient)
