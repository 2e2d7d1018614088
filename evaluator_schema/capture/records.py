"""The records that lead to an evaluator: those of live objects, traced or adopted, and those behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import CaptureError
from ..tracing.recording import Record, TensorArgument, registry
from ..values import Iterated, leaf_values
from .adoption import adopt


class Records:
    """The record of each live object, traced or adopted, made once."""

    def __init__(self) -> None:
        self._known: dict[int, Record | CaptureError] = {}

    def of(self, value: Any) -> Record | CaptureError:
        """Give the record of an object, or the error that says why there is none."""
        if id(value) not in self._known:
            self._known[id(value)] = registry.get(value) or _adopted(value)
        return self._known[id(value)]


def _adopted(value: Any) -> Record | CaptureError:
    try:
        return adopt(value)
    except CaptureError as error:
        return error


def with_inner(records: Sequence[Record]) -> list[Record]:
    """List records with all the records that their arguments lead to, each once."""
    found: dict[int, Record] = {}
    pending = list(records)
    while pending:
        record = pending.pop()
        if id(record) not in found:
            found[id(record)] = record
            pending += [
                leaf for leaf in leaf_values([record.args, record.kwargs]) if isinstance(leaf, Record)
            ]
    return list(found.values())


def named_pairs(value: Any) -> list[tuple[str, TensorArgument]]:
    """List the `(name, parameter)` pairs in recorded arguments."""
    found: list[tuple[str, TensorArgument]] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Iterated):
            pending.append(item.items)
        elif isinstance(item, dict):
            pending += item.values()
        elif (
            isinstance(item, tuple)
            and len(item) == 2
            and isinstance(item[0], str)
            and isinstance(item[1], TensorArgument)
        ):
            found.append(item)
        elif isinstance(item, list | tuple):
            pending += item
    return found
