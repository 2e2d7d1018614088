"""What of an evaluator goes into a file: its JSON where that says all, else its pickled fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from ..evaluator_schema.errors import NotSerializableError
from .drafting import draft_declared, draft_pickled
from .layout import View
from .memory import MemoryWriter

if TYPE_CHECKING:
    from ..evaluator_schema.evaluator import Evaluator
    from .signing import Keys
    from .writing import Draft

# The class of an evaluator that is not rebind's own travels with it, under this name.
CLASS: Final = "class"


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
        if not is_own(cls):
            fields, code_fields = {CLASS: cls, **fields}, [CLASS, *code_fields]
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
    imports = {} if is_own(cls) else {CLASS: (f"{cls.__module__}:{cls.__qualname__}",)}
    return draft_declared(text, memory, kind=kind, key=key, summary=summary, imports=imports)


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


def is_own(cls: type) -> bool:
    """Whether an evaluator's class is rebind's, and not the user's."""
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]
