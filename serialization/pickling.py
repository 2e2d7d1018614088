"""Pickled code: the only place that pickles and unpickles.

Fields are pickled one after the other by one pickler, so that an object in two of them is written
once, and so that every failure can be told by its field.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cloudpickle
import torch
from torch import Tensor

from ..evaluator_schema.checking.shippability import explain
from ..evaluator_schema.errors import (
    InvalidPayloadError,
    MissingModuleError,
    NotSerializableError,
    RebindError,
)
from . import rebuild
from .cures import OPEN_ELSEWHERE
from .imports import ImportRecorder, missing_message
from .memory import MemoryWriter, Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .mapped import MemoryReader

_PROTOCOL: Final = 5

# Modules of rebind that were moved: the name in old payloads -> the name now.
MOVED_MODULES: Final[dict[str, str]] = {}


def moved(module: str) -> str:
    """Where a module is now that a payload names."""
    return MOVED_MODULES.get(module, module)


def global_name(value: Any) -> str | None:
    """The name (`module:qualname`) by which a pickle refers to a function or class.

    None for anything else, and for what is pickled by its content: what no other process would find by
    name, or is in a module that was registered with `cloudpickle.register_pickle_by_value`.
    """
    if not isinstance(value, types.FunctionType | type):
        return None
    found = cloudpickle.cloudpickle._lookup_module_and_qualname(value)
    if found is None or cloudpickle.cloudpickle._is_registered_pickle_by_value(found[0]):
        return None
    return f"{found[0].__name__}:{found[1]}"


@dataclass(frozen=True, slots=True)
class Pickled:
    """Pickled fields.

    Attributes:
        stream: One pickle for each field, in order.
        imports: For each field, the names that opening it looks up.
    """

    stream: bytes
    imports: dict[str, tuple[str, ...]]


def pickle_fields(fields: Mapping[str, Any], memory: MemoryWriter) -> Pickled:
    """Pickle the values of `fields`, with their tensors and large buffers left to `memory`.

    Raises:
        NotSerializableError: Naming the field and, if it can be found, the culprit in it.
    """
    file = io.BytesIO()
    pickler = _PayloadPickler(file, memory)
    recorder = ImportRecorder()
    imports = {}
    for name, value in fields.items():
        memory.field = name
        start = file.tell()
        try:
            pickler.dump(value)
        except MemoryError:
            raise
        except NotSerializableError as error:
            raise NotSerializableError("; ".join(_explain(value, name)) or f"{name}: {error}") from error
        except Exception as error:
            raise _not_serializable(name, value, error) from error
        file.seek(start)
        imports[name] = recorder.record(file.read())
    return Pickled(file.getvalue(), imports)


def unpickle_fields(stream: bytes, fields: tuple[str, ...], memory: MemoryReader) -> dict[str, Any]:
    """Unpickle what `pickle_fields` wrote. This runs the code in it: verify before.

    Raises:
        MissingModuleError: A module or name is not here.
        InvalidPayloadError: An object in it raised while it was put together.
    """
    unpickler = _PayloadUnpickler(io.BytesIO(stream), memory)
    values = {}
    for name in fields:
        try:
            values[name] = unpickler.load()
        except (RebindError, MemoryError) as error:
            error.add_note(f"while opening {name!r}")
            raise
        except ImportError as error:
            raise MissingModuleError(missing_message([(str(error), name)])) from error
        except Exception as error:
            raise InvalidPayloadError(
                f"The field {name!r} cannot be put together again. {type(error).__name__}: {error}. "
                f"{OPEN_ELSEWHERE}"
            ) from error
    return values


class _PayloadPickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, memory: MemoryWriter) -> None:
        super().__init__(file, protocol=_PROTOCOL, buffer_callback=memory.add_buffer)
        self._memory = memory

    def persistent_id(self, obj: Any) -> int | None:
        return obj.number if type(obj) is Span else None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return self._reduce_tensor(obj)
        if isinstance(obj, (torch.UntypedStorage, torch.TypedStorage)):
            return self._reduce_storage(obj)
        if isinstance(obj, io.IOBase) and not isinstance(obj, (io.BytesIO, io.StringIO)):
            return _reduce_stream(obj)
        if isinstance(obj, functools._lru_cache_wrapper) and not _is_found(obj):
            # It says that it is found by its name, and this one is not: it travels with an empty cache.
            parameters = obj.cache_parameters()
            return _cached, (obj.__wrapped__, parameters["maxsize"], parameters["typed"])
        return super().reducer_override(obj)

    def _reduce_tensor(self, tensor: Tensor) -> Any:
        _refuse_without_content(tensor)
        if not _is_plain(tensor):
            # Torch takes it apart, down to tensors and storages that come here again.
            return NotImplemented
        torch.utils.hooks.warn_if_has_hooks(tensor)
        # What has no storage (XLA) is taken by its elements.
        source = tensor if torch._C._has_storage(tensor) else tensor.detach().cpu()
        arguments = (
            self._memory.add_tensor(source),
            str(tensor.dtype).removeprefix("torch."),
            tuple(source.shape),
            source.stride(),
            tensor.requires_grad,
            tensor.is_conj(),
            tensor.is_neg(),
        )
        if state := _user_attributes(tensor):
            return rebuild.with_attributes, (rebuild.tensor, Tensor, arguments, state)
        return rebuild.tensor, arguments

    def _reduce_storage(self, storage: torch.UntypedStorage | torch.TypedStorage) -> Any:
        if isinstance(storage, torch.UntypedStorage):
            return rebuild.storage, (self._memory.add_storage(storage), None)
        untyped, dtype = storage._untyped_storage, storage.dtype
        span = self._memory.add_storage(untyped)
        return rebuild.storage, (span, str(dtype).removeprefix("torch."))


# At module level: a class made inside of a function is part of a cycle of references, which would
# hold the mapping of the file until the next garbage collection.
class _PayloadUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, memory: MemoryReader) -> None:
        super().__init__(file, buffers=memory.buffers())
        self._memory = memory

    def persistent_load(self, pid: Any) -> rebuild.Place:
        return self._memory.place(pid)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(moved(module), name)
        except AttributeError as error:
            raise ImportError(f"module {module!r} has no {name!r}") from error


def _is_found(function: Any) -> bool:
    """Tell whether another process finds a function under its own name."""
    module = function.__module__
    found: Any = None if module == "__main__" else sys.modules.get(module)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is function


def _cached(function: Any, maxsize: int | None, typed: bool) -> Any:  # noqa: FBT001 - a pickle calls it
    return functools.lru_cache(maxsize, typed)(function)


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) is Tensor
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_nested
        and tensor.device.type != "meta"
    )


def _user_attributes(tensor: Tensor) -> Any:
    return torch._utils._get_obj_state(tensor)  # type: ignore[no-untyped-call]


def _refuse_without_content(tensor: Tensor) -> None:
    from torch._subclasses.fake_tensor import FakeTensor

    if isinstance(tensor, FakeTensor):
        raise NotSerializableError(
            "A FakeTensor has no content that could be written. Take the value outside of the fake "
            "tensor mode."
        )


def _reduce_stream(stream: io.IOBase) -> Any:
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        if stream is getattr(sys, name):
            return getattr, (sys, name)
    raise NotSerializableError(
        f"An open file ({getattr(stream, 'name', type(stream).__name__)!r}) is not written: it "
        "would be another file, or none, where the value is opened. Keep the path, and open it "
        "when it is needed."
    )


def _not_serializable(field: str, value: Any, error: Exception) -> NotSerializableError:
    culprits = _explain(value, field)
    found = "; ".join(culprits) or f"{field}: {type(error).__name__}: {error}"
    return NotSerializableError(
        f"{found}. Make it inside of the function that uses it, or pass what it is made from."
    )


def _explain(value: Any, field: str) -> list[str]:
    try:
        return explain(value, field)
    except Exception:  # noqa: BLE001 - it asks the value's own methods, one of which has just failed
        return []
