"""What of an evaluator goes into a file: its JSON where that says all, else its pickled fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from pydantic import ValidationError
from torch import Tensor

from ..evaluator_schema.declarative.importing import is_allowed, resolve
from ..evaluator_schema.errors import (
    CorruptedError,
    InvalidPayloadError,
    MissingModuleError,
    NotARebindFileError,
    NotSerializableError,
    RebindError,
)
from ..evaluator_schema.evaluator import Evaluator
from .cures import GET_AGAIN, OPEN_ELSEWHERE
from .drafting import draft_declared, draft_pickled
from .layout import View
from .memory import MemoryWriter
from .trust import strange_modules, untrusted_imports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .manifest import Manifest
    from .mapped import MemoryReader
    from .opening import Opened
    from .signing import Keys
    from .writing import Draft

# The class of an evaluator that is not rebind's own travels with it, under this name.
_CLASS: Final = "class"
_MOST_DIGITS: Final = 12


def draft_evaluator(evaluator: Evaluator, key: Keys | None) -> Draft:
    """A file with this evaluator.

    Raises:
        UnresolvedParametersError: Parameters have no names.
        NotSerializableError: Something in it cannot be written.
    """
    evaluator.require_names()
    cls = type(evaluator)
    kind, summary = cls.__name__, evaluator.summary()
    if code_fields := evaluator.code_fields():
        fields = dict(evaluator.fields())
        if not _is_own(cls):
            fields, code_fields = {_CLASS: cls, **fields}, [_CLASS, *code_fields]
        return draft_pickled(
            fields,
            content="evaluator",
            kind=kind,
            key=key,
            summary=summary,
            code_fields=code_fields,
        )
    memory = MemoryWriter(kind)
    text = evaluator.model_dump_json(context={"write_tensor": _TensorWriter(memory)})
    imports = {} if _is_own(cls) else {_CLASS: (f"{cls.__module__}:{cls.__qualname__}",)}
    return draft_declared(text, memory, kind=kind, key=key, summary=summary, imports=imports)


def evaluator_of(
    opened: Opened, memory: MemoryReader, allow: Iterable[str], *, again: bool = False
) -> Evaluator:
    """The evaluator in checked bytes.

    Args:
        opened: The bytes.
        memory: Its tensors.
        allow: Modules that import paths may lead to.
        again: Whether these bytes have given a valid evaluator in this process before. Most of the work
            is to check what comes out, which is the same each time.

    Raises:
        NotARebindFileError: They hold something else.
        UntrustedPayloadError: An import path leads to a module that is not on the allow-list.
        InvalidPayloadError: What they hold is not a valid evaluator here.
        SerializationError: The content does not come back.
    """
    manifest = opened.manifest
    if manifest.content != "evaluator":
        raise NotARebindFileError(
            f"These bytes hold the value {manifest.kind!r}, and no evaluator: use unpack."
        )
    # What somebody vouches for may name whatever it wants, as pickled code may.
    allow = ("*",) if opened.vouched else tuple(allow)
    context = {"allow": list(allow), "read_tensor": lambda text: _read_tensor(text, memory)}
    if manifest.payload == "pickle":
        fields = opened.unpickle(memory)
        cls = fields.pop(_CLASS, None) or _class_of(manifest, ())
        # A class of the user's may have validators that do more than to check.
        checked = again and _is_own(cls)
        return _valid(manifest, allow, lambda: cls.from_fields(fields, context=context, checked=checked))
    cls = _class_of(manifest, allow)
    return _valid(manifest, allow, lambda: cls.model_validate_json(opened.text(), context=context))


class _TensorWriter:
    """Puts the tensors of a declarative payload beside it; what stands in the JSON is a number."""

    def __init__(self, memory: MemoryWriter) -> None:
        self._memory = memory

    def __call__(self, tensor: Tensor) -> str:
        is_parameter = type(tensor) is torch.nn.Parameter
        if not (is_parameter or type(tensor) is Tensor) or not _has_plain_memory(tensor):
            raise NotSerializableError(
                f"A {tensor.layout} tensor of type {type(tensor).__name__} is not written without "
                "pickled code. Use a strided tensor with content."
            )
        plain = tensor.detach().resolve_conj().resolve_neg()
        view = View(
            span=self._memory.add_tensor(plain).number,
            dtype=str(plain.dtype).removeprefix("torch."),
            shape=tuple(plain.shape),
            stride=plain.stride(),
            requires_grad=tensor.requires_grad,
            is_parameter=is_parameter,
        )
        return str(self._memory.add_view(view))


def _has_plain_memory(tensor: Tensor) -> bool:
    return (
        tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_nested
        and tensor.device.type != "meta"
    )


def _read_tensor(text: object, memory: MemoryReader) -> Tensor:
    if not isinstance(text, str) or not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise CorruptedError(
            f"The payload refers to a tensor {text!r:.80} that is not in the file. {GET_AGAIN}"
        )
    return memory.view(int(text))


def _class_of(manifest: Manifest, allow: Iterable[str]) -> type[Evaluator]:
    kinds = Evaluator.kinds()
    if manifest.kind in kinds:
        return kinds[manifest.kind]
    for path in manifest.imports.get(_CLASS, ()):
        module = path.partition(":")[0]
        if not is_allowed(module, allow):
            raise untrusted_imports(manifest, {_CLASS: [module]})
        found = resolve(path, allow)
        if isinstance(found, type) and issubclass(found, Evaluator):
            return found
    raise MissingModuleError(
        f"There is no kind of evaluator named {manifest.kind!r} here. Import the module that "
        "defines it before, or update rebind."
    )


def _valid(manifest: Manifest, allow: Iterable[str], make: Callable[[], Evaluator]) -> Evaluator:
    try:
        return make()
    except (RebindError, MemoryError):
        raise
    except ValidationError as error:
        if strange := strange_modules(error, allow):
            raise untrusted_imports(manifest, strange) from error
        raise InvalidPayloadError(
            f"The file is whole, and the {manifest.kind} in it is not valid here. {OPEN_ELSEWHERE} {error}"
        ) from error
    except Exception as error:
        raise InvalidPayloadError(
            f"The file is whole, and the {manifest.kind} in it cannot be made. {OPEN_ELSEWHERE} "
            f"{type(error).__name__}: {error}"
        ) from error


def _is_own(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]
