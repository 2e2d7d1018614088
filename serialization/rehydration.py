"""An evaluator out of checked bytes, as often as it is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import torch
from pydantic import ValidationError

from ..evaluator_schema.declarative.importing import import_path, is_allowed, resolve
from ..evaluator_schema.declarative.migrations import migration_count
from ..evaluator_schema.errors import (
    CorruptedError,
    InvalidPayloadError,
    MissingModuleError,
    NotARebindFileError,
    RebindError,
)
from ..evaluator_schema.evaluator import Evaluator
from ..evaluator_schema.values import ModuleHole, ParameterHole, ParametersHole, Ref
from .content import CLASS, is_own
from .cures import GET_AGAIN, OPEN_ELSEWHERE
from .trust import strange_modules, untrusted_imports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from .manifest import Manifest
    from .mapped import MemoryReader
    from .opening import Opened

_DICT_OF_OTHER_KEYS: Final = '"$dict"'
_MOST_DIGITS: Final = 12


class Content:
    """The evaluator in checked bytes, as often as it is wanted, a fresh one each time.

    The first one is validated. Most of the work is to check what comes out, which is the same each time,
    so those after it are made without that, as far as they are of a class of rebind's own: one of the
    user's may have validators that do more than to check.

    Args:
        opened: The bytes.
        allow: Modules that import paths may lead to.
    """

    def __init__(self, opened: Opened, allow: Iterable[str]) -> None:
        self._opened = opened
        # What somebody vouches for may name whatever it wants, as pickled code may.
        self._allow = ("*",) if opened.vouched else tuple(allow)
        self._checked = False
        # A copy without tensors, unless it would share what can be changed, and how many migrations it
        # has been through.
        self._blank: Evaluator | None = None
        self._migrations = -1

    def evaluator(self, memory: MemoryReader) -> Evaluator:
        """Make an evaluator.

        Args:
            memory: Its tensors.

        Raises:
            NotARebindFileError: The bytes hold something else.
            UntrustedPayloadError: An import path leads to a module that is not on the allow-list.
            InvalidPayloadError: What they hold is not a valid evaluator here.
            SerializationError: The content does not come back.
        """
        manifest = self._opened.manifest
        if manifest.content != "evaluator":
            raise NotARebindFileError(
                f"These bytes hold the value {manifest.kind!r}, and no evaluator: use unpack."
            )
        if self._blank is not None and self._migrations == migration_count():
            return self._blank.with_leaves(lambda leaf: _filled(leaf, memory))
        evaluator = _valid(manifest, self._allow, lambda: self._validated(memory))
        self._checked = True
        return evaluator

    def _validated(self, memory: MemoryReader) -> Evaluator:
        manifest = self._opened.manifest
        read: list[tuple[Tensor, _Place]] = []

        def read_tensor(text: object) -> Tensor:
            place = _place_of(text)
            tensor = memory.view(place.number)
            read.append((tensor, place))
            return tensor

        context = {"allow": list(self._allow), "read_tensor": read_tensor}
        if manifest.payload == "pickle":
            fields = self._opened.unpickle(memory)
            cls = fields.pop(CLASS, None) or _class_of(manifest, ())
            return cls.from_fields(fields, context=context, checked=self._checked and is_own(cls))
        cls = _class_of(manifest, self._allow)
        text = self._opened.text()
        evaluator = cls.model_validate_json(text, context=context)
        if is_own(cls) and self._migrations != migration_count():
            # The keys of a dict are not looked into, and those of JSON are strings.
            self._blank = None if _DICT_OF_OTHER_KEYS in text else _blank(evaluator, read)
            self._migrations = migration_count()
        return evaluator


@dataclass(frozen=True, slots=True)
class _Place:
    """Stands for a tensor of the file."""

    number: int


# Leaves that several evaluators may share; what has an import path is shared by everybody.
_IMMUTABLE: Final = (
    type(None), bool, int, float, complex, str, bytes, range, Enum, torch.dtype, torch.device, torch.Size,
    ParameterHole, ParametersHole, ModuleHole, Ref,
)  # fmt: skip


def _blank(evaluator: Evaluator, read: Sequence[tuple[Tensor, _Place]]) -> Evaluator | None:
    """The evaluator with places where its tensors are, each of which was read from its place.

    None where there is more in it that must not be shared by two evaluators.
    """
    places = {id(tensor): place for tensor, place in read}
    left = set(places)
    shareable = True

    def blank(leaf: Any) -> Any:
        nonlocal shareable
        if id(leaf) in places:
            left.discard(id(leaf))
            return places[id(leaf)]
        shareable = shareable and (isinstance(leaf, _IMMUTABLE) or import_path(leaf) is not None)
        return leaf

    blanked = evaluator.with_leaves(blank)
    return blanked if shareable and not left else None


def _filled(leaf: Any, memory: MemoryReader) -> Any:
    return memory.view(leaf.number) if type(leaf) is _Place else leaf


def _place_of(text: object) -> _Place:
    if not isinstance(text, str) or not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise CorruptedError(
            f"The payload refers to a tensor {text!r:.80} that is not in the file. {GET_AGAIN}"
        )
    return _Place(int(text))


def _class_of(manifest: Manifest, allow: Iterable[str]) -> type[Evaluator]:
    kinds = Evaluator.kinds()
    if manifest.kind in kinds:
        return kinds[manifest.kind]
    for path in manifest.imports.get(CLASS, ()):
        module = path.partition(":")[0]
        if not is_allowed(module, allow):
            raise untrusted_imports(manifest, {CLASS: [module]})
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
