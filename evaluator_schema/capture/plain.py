"""From traced objects that hold no parameters, such as a trainer, to constructions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..checking.problems import Invalid, Problems
from ..checking.signatures import Location
from ..construction import LIVE, Construction
from ..tracing.recording import ModuleArgument, Record, TensorArgument, registry
from ..values import Iterated, Ref, copy_tensor, map_container
from .ordering import renumbered


def capture_plain(values: Sequence[Any], is_copied: Callable[[Any], bool] = lambda _: True) -> list[Any]:
    """Turn traced objects into constructions. What is no traced object passes as it is.

    Traced objects among the arguments become constructions inside, one for each object; every other object
    is copied, so that what becomes of it later changes nothing.

    Args:
        values: Traced objects, or records of some.
        is_copied: Tells of an object whether it is to be copied; others are kept as they are, and shared.

    Returns:
        A `Construction`, or an `Invalid` that tells what is wrong, for each traced object.
    """
    capturing = _Capturing(is_copied)
    return renumbered([capturing.root(value) for value in values])


class _Capturing:
    def __init__(self, is_copied: Callable[[Any], bool]) -> None:
        self._is_copied = is_copied
        self._emitted: set[int] = set()
        self._copies: dict[int, Any] = {}

    def root(self, value: Any) -> Any:
        record = value if isinstance(value, Record) else registry.get(value)
        if record is None:
            return value
        problems = Problems()
        try:
            captured = self._construction(record, problems)
        except ValidationError as error:
            problems.include((), error)
        return Invalid(problems) if problems else captured

    def _construction(self, record: Record, problems: Problems) -> Construction | None:
        self._emitted.add(id(record))
        args = tuple(self._value(v, ("args", i), problems) for i, v in enumerate(record.args))
        kwargs = {key: self._value(v, ("kwargs", key), problems) for key, v in record.kwargs.items()}
        if problems:
            return None
        return Construction.model_validate(
            {
                "target": record.target,
                "args": args,
                "kwargs": kwargs,
                "order": record.order + _SHIFT,
                "location": f"{Path(record.file).name}:{record.line}" if record.file else None,
            },
            context={LIVE: True},
        )

    def _value(self, value: Any, path: Location, problems: Problems) -> Any:
        if isinstance(value, Record):
            return self._inner(value, path, problems)
        if isinstance(value, TensorArgument):
            tensor = value.live() if value.value is None else value.value
            if tensor is None:
                problems.add(path, "a recorded tensor is gone: create the evaluator while it lives")
            return None if tensor is None else copy_tensor(tensor)
        if isinstance(value, ModuleArgument):
            value = value.live()
            if value is None:
                problems.add(path, "a recorded module is gone: create the evaluator while it lives")
        if isinstance(value, Iterated):
            return Iterated(self._value(value.items, path, problems))
        mapped = map_container(value, lambda item: self._value(item, path, problems))
        copies = mapped is value and self._is_copied(value)
        return self._copied(value, path, problems) if copies else mapped

    def _inner(self, record: Record, path: Location, problems: Problems) -> Any:
        if id(record) in self._emitted:
            return Ref(record.order + _SHIFT)
        inner = Problems()
        try:
            captured = self._construction(record, inner)
            inner.raise_if_any("inner")
        except ValidationError as error:
            problems.include(path, error)
            return None
        return captured

    def _copied(self, value: Any, path: Location, problems: Problems) -> Any:
        try:
            return copy.deepcopy(value, self._copies)
        except Exception as error:  # noqa: BLE001 - a copy runs code of the user's
            problems.add(
                path,
                f"this {type(value).__name__} cannot be copied ({error}); each training needs one of its "
                f"own, so construct it by a traced call: trace({type(value).__name__})(...)",
                value,
                "not_copyable",
            )
            return None


# What is recorded in the place of an untraced argument stands one before the first traced call.
_SHIFT = 1
