"""Which objects among recorded arguments stand in several places, so that each build makes one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..tracing.recording import Amendment, Record, TensorArgument
from ..values import Shared, leaf_values


class Sharing:
    """The shared objects of an evaluator: tensors, and objects that keep state between their calls.

    A tensor learning rate that two groups share is changed for both by a scheduler, and an object that
    counts its calls counts those of everybody.

    Args:
        records: All records of the evaluator.
        pending: Amendments that the records do not hold.
    """

    def __init__(self, records: Iterable[Record], pending: Iterable[Amendment]) -> None:
        self._originals: dict[int, Any] = {}
        self._first: dict[int, Any] = {}
        counts: Counter[int] = Counter()
        for record in sorted(records, key=lambda record: record.order):
            self._originals.update(record.originals)
            for leaf in leaf_values([record.args, record.kwargs, *(a.options for a in record.amendments)]):
                self._count(leaf, counts)
        for amendment in pending:
            for leaf in leaf_values(amendment.options):
                self._count(leaf, counts)
        several = [key for key in self._first if counts[key] > 1]
        self._numbers = {key: number for number, key in enumerate(several)}

    def _count(self, leaf: Any, counts: Counter[int]) -> None:
        if isinstance(leaf, TensorArgument):
            key, value = id(leaf.live()), leaf.value
            if leaf.live() is None or value is None:
                return
        elif id(leaf) in self._originals:
            key, value = id(self._originals[id(leaf)]), leaf
        else:
            return
        counts[key] += 1
        self._first.setdefault(key, value)

    def of_tensor(self, argument: TensorArgument) -> Any:
        """Give a recorded tensor, as shared if it is."""
        return self._of(argument.live(), argument.value)

    def of(self, value: Any) -> Any:
        """Give anything else that was recorded, as shared if it is."""
        return self._of(self._originals.get(id(value)), value)

    def _of(self, original: Any, value: Any) -> Any:
        if original is None or id(original) not in self._numbers:
            return value
        return Shared(self._numbers[id(original)], self._first[id(original)])
