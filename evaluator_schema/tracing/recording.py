"""What is remembered of a traced call: its arguments as given, and where its result went from there."""

from __future__ import annotations

import copy
import gc
import itertools
import operator
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import Module

from ..values import Iterated, copy_callable, copy_tensor, map_container

# Iterators that run dry: these are turned into lists, once. Files, and counters without an end, are not.
_FINITE_ITERATORS: tuple[type[Any], ...] = (
    types.GeneratorType,
    filter,
    map,
    zip,
    enumerate,
    reversed,
    itertools.accumulate,
    itertools.chain,
    itertools.compress,
    itertools.dropwhile,
    itertools.filterfalse,
    itertools.islice,
    itertools.starmap,
    itertools.takewhile,
    itertools.zip_longest,
    *(type(iter(some)) for some in ([0], (0,), {0: 0}, {0}, {0: 0}.values(), {0: 0}.items(), range(1), "a")),
    *(
        type(iter(some))
        for some in (deque[int](), OrderedDict[int, int](), b"a", bytearray(b"a"), range(1 << 70))
    ),
    *(type(reversed(some)) for some in ([0], {0: 0}, {0: 0}.values(), {0: 0}.items(), deque[int]())),
)
_MODULE_GENERATORS = (Module.parameters.__code__, Module.named_parameters.__code__)


@dataclass(slots=True, eq=False)
class TensorArgument:
    """A tensor that was an argument: the very tensor, and its value then where it is no parameter."""

    live: weakref.ref[torch.Tensor]
    value: torch.Tensor | None


@dataclass(slots=True, eq=False)
class ModuleArgument:
    """A module that was an argument."""

    live: weakref.ref[Module]


@dataclass(slots=True)
class Amendment:
    """A change that was made to an optimizer's parameter groups after its construction.

    Attributes:
        order: When it was noticed, on the clock that also orders the calls.
        group: The group's index; one past the last stands for `add_param_group`.
        options: The options that changed, as recorded values. A new group's include `params`.
        refusal: Why it cannot be done again, where it is of a kind that options do not tell.
    """

    order: int
    group: int
    options: dict[str, Any]
    refusal: str | None = None


@dataclass(slots=True)
class NotedGroups:
    """The parameter groups of an optimizer at one moment.

    Attributes:
        groups: The options of each group: the very objects, and their values then.
        defaults: The optimizer's defaults then.
        scheduled: Whether a scheduler had been built on the optimizer.
    """

    groups: list[dict[str, tuple[Any, Any]]]
    defaults: dict[str, Any]
    scheduled: bool


@dataclass(slots=True, eq=False, weakref_slot=True)
class Record:
    """One traced call.

    Attributes:
        target: What was called.
        args: Its positional arguments, as recorded values.
        kwargs: Its keyword arguments, as recorded values.
        order: When it was called, on a clock that all traced calls of the process share.
        file: The file of the caller.
        line: The line of the caller.
        roots: Modules whose `parameters()` were among the arguments.
        originals: By the identity of each copy in the arguments, the caller's own object.
        amendments: What was done to the result since, where it is an optimizer.
        groups: The parameter groups as they were when they were last noted; see `amendments`.
        result: Gives what the call returned for as long as that lives, then None.
    """

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    order: int
    file: str
    line: int
    roots: list[weakref.ref[Module]]
    originals: dict[int, Any] = field(default_factory=dict)
    amendments: list[Amendment] = field(default_factory=list)
    result: Callable[[], Any] = lambda: None
    groups: NotedGroups | None = None

    @property
    def location(self) -> str:
        """Where the call stands, its file and line with a colon between."""
        return f"{self.file}:{self.line}"


class _Registry:
    """Records by the identity of what was built; nothing is written onto the objects themselves."""

    def __init__(self) -> None:
        self._records: dict[int, tuple[weakref.ref[Any], Record]] = {}

    def get(self, built: object) -> Record | None:
        entry = self._records.get(id(built))
        return entry[1] if entry is not None and entry[0]() is built else None

    def put(self, built: object, record: Record) -> None:
        key = id(built)

        def forget(dead: weakref.ref[Any]) -> None:
            entry = self._records.get(key)
            if entry is not None and entry[0] is dead:
                del self._records[key]

        try:
            live = weakref.ref(built, forget)
        except TypeError:  # numbers, tuples and the like cannot be told from an equal one
            return
        record.result = live
        self._records[key] = (live, record)


registry: _Registry = _Registry()
_clock = itertools.count()


def tick() -> int:
    """Give the next moment of the clock that orders all traced calls."""
    return next(_clock)


class Snapshot:
    """Arguments as recorded values, taken before a call.

    `rewind` comes first and gives what the call itself gets: every iterator is read to its end, once,
    and replaced by one over the same items, in the caller's own containers too.

    Args:
        copy_callables: Whether objects that can be called are copied, since they may keep state between
            their calls.
        is_copied: Tells of any other object whether it is copied, since the call may change it, as a Trainer
            changes its strategy. What cannot be copied is recorded as it is. None copies nothing.

    Attributes:
        roots: Modules whose `parameters()` were found.
        used: Records of traced objects that were found.
        originals: By the identity of each copy of an object, the object.
    """

    def __init__(
        self, *, copy_callables: bool = False, is_copied: Callable[[Any], bool] | None = None
    ) -> None:
        self.roots: list[weakref.ref[Module]] = []
        self.used: list[Record] = []
        self.originals: dict[int, Any] = {}
        self._copy_callables = copy_callables
        self._is_copied = is_copied
        self._memo: dict[int, Any] = {}
        self._copies: dict[int, Any] = {}

    def rewind(self, value: Any) -> Any:
        """Replace the iterators in a value by fresh ones that `take` can read without consuming them."""
        kind = type(value)
        if kind in _PLAIN or isinstance(value, torch.Tensor):
            return value
        if isinstance(value, _FINITE_ITERATORS):
            self.roots += [weakref.ref(module) for module in modules_behind(value)]
            return iter([self.rewind(item) for item in value])
        if isinstance(value, dict):
            for key, item in value.items():
                if (fresh := self.rewind(item)) is not item:
                    value[key] = fresh
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if (fresh := self.rewind(item)) is not item:
                    value[index] = fresh
        elif kind is tuple:
            items = tuple(self.rewind(item) for item in value)
            return value if all(map(operator.is_, items, value)) else items
        return value

    def take(self, value: Any) -> Any:
        """Record one value: containers are copied, tensors and modules referred to, iterators read."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, torch.Tensor):
            is_parameter = isinstance(value, torch.nn.Parameter)
            return TensorArgument(weakref.ref(value), None if is_parameter else copy_tensor(value))
        record = registry.get(value)
        if record is not None:
            self.used.append(record)
            return record
        if isinstance(value, Module):
            return ModuleArgument(weakref.ref(value))
        if kind is _LIST_ITERATOR:
            return Iterated([self.take(item) for item in copy.copy(value)])
        if isinstance(value, KeysView | ValuesView | ItemsView):
            return [self.take(item) for item in value]
        if self._copy_callables and callable(value):
            return self._copy(value)
        mapped = map_container(value, self.take)
        copies = mapped is value and self._is_copied is not None and self._is_copied(value)
        return self._copied(value) if copies else mapped

    def _copied(self, value: Any) -> Any:
        try:
            return copy.deepcopy(value, self._memo)
        except Exception:  # noqa: BLE001 - who needs the copy will say so
            return value

    def _copy(self, value: Any) -> Any:
        if id(value) not in self._copies:
            copied = self._copies[id(value)] = copy_callable(value)
            self.originals[id(copied)] = value
        return self._copies[id(value)]


_PLAIN = frozenset({int, float, bool, str, bytes, complex, type(None), types.FunctionType})


_LIST_ITERATOR: type[Any] = type(iter([0]))


def modules_behind(iterator: Iterator[Any]) -> list[Module]:
    """Find the modules whose `parameters()` an iterator draws from, through filters and chains."""
    found: list[Module] = []
    pending: list[Any] = [iterator]
    while pending:
        source = pending.pop()
        if isinstance(source, types.GeneratorType):
            frame = source.gi_frame
            if frame is None:
                continue
            if source.gi_code in _MODULE_GENERATORS:
                found.append(frame.f_locals["self"])
            else:
                pending += [v for v in frame.f_locals.values() if isinstance(v, _FINITE_ITERATORS)]
        else:
            inner = gc.get_referents(source)
            pending += [
                item
                for held in inner
                for item in (held if isinstance(held, tuple | list) else (held,))
                if isinstance(item, _FINITE_ITERATORS)
            ]
    return found
