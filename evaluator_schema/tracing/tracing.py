"""`trace`: the real thing is built, and how it was built is recorded beside it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Any, ParamSpec, TypeVar, cast
from weakref import WeakValueDictionary

from torch import optim
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from ..changed_arguments import changed_by
from ..checking.signatures import misfits, name_of
from ..errors import ArgumentError
from .amendments import has_scheduler, note_groups, notice, optimizers_behind
from .recording import Record, Snapshot, registry, tick

P = ParamSpec("P")
T = TypeVar("T")


def trace(target: Callable[P, T]) -> Callable[P, T]:
    """Record how objects are constructed, so that they can be constructed again for another model.

    What `trace(target)(...)` gives is what `target(...)` gives; the arguments are remembered as they
    were before the call. As a decorator on a class, `@trace` gives back that very class, whose
    constructions are recorded from then on.

    Args:
        target: A class, a function, a factory, a partial or any other callable.

    Returns:
        A callable with the same signature. `trace(target)` is always the same object for the same target.

    Raises:
        ArgumentError: (a TypeError, at the call) The arguments do not fit the signature.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = trace(torch.optim.SGD)(model.parameters(), lr=0.1)
        >>> type(optimizer) is torch.optim.SGD
        True
        >>> construction_of(optimizer).kwargs
        {'lr': 0.1}
    """
    wrapper = _wrappers.get(id(target))
    if wrapper is not None:
        return cast("Callable[P, T]", wrapper)
    if isinstance(target, _Traced) or _records_itself(target):
        return target
    if not callable(target):
        raise ArgumentError(
            f"trace takes a class, a function or another callable, not {type(target).__name__}: "
            "write trace(SGD)(...), not trace(SGD(...))"
        )
    if isinstance(target, type) and _is_being_defined(target, sys._getframe(1)):
        return cast("Callable[P, T]", _make_recording(target))
    wrapper = _wrappers[id(target)] = _Traced(target)
    if id(target) in _TORCHS_OWN:
        _lasting.append(wrapper)
    return cast("Callable[P, T]", wrapper)


def is_traced(value: object) -> bool:
    """Tell whether `value` was built by a traced call, in this process.

    Args:
        value: Any object.
    """
    return registry.get(value) is not None


def construction_of(value: object) -> Record:
    """Give the record of how a traced object was built.

    Args:
        value: What a traced call returned.

    Raises:
        LookupError: `value` was not built by a traced call.
    """
    record = registry.get(value)
    if record is None:
        raise LookupError(
            f"this {type(value).__name__} was not built by a traced call: write "
            f"trace({type(value).__name__})(...) where it is built"
        )
    return record


class _Traced:
    """What `trace` gives for a target: calls are recorded, everything else is the target's own."""

    def __init__(self, target: Any) -> None:
        self._rebind_target = target
        self.__wrapped__ = target
        self.__doc__ = target.__doc__
        for name in ("__module__", "__name__", "__qualname__"):
            if hasattr(target, name):
                setattr(self, name, getattr(target, name))

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return _record_call(self._rebind_target, self._rebind_target, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_rebind"):  # while unpickling, before there is a target
            raise AttributeError(name)
        return getattr(self._rebind_target, name)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        bound = self._rebind_target.__get__(instance, owner)
        return bound if isinstance(self._rebind_target, type) else _Traced(bound)

    # A traced class may stand where classes stand.
    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._rebind_target)

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._rebind_target)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._rebind_target,)

    def __reduce__(self) -> str | tuple[Any, ...]:
        module = sys.modules.get(getattr(self, "__module__", ""))
        name = getattr(self, "__qualname__", "")
        if getattr(module, name, None) is self:
            return cast("str", name)
        return trace, (self._rebind_target,)

    def __repr__(self) -> str:
        return f"trace({name_of(self._rebind_target)})"


# By the identity of the target, which lives as long as its wrapper does.
_wrappers: WeakValueDictionary[int, _Traced] = WeakValueDictionary()
# Torch's own optimizers and schedulers live as long as the process, and so do their wrappers, once made:
# `trace(SGD)(...)`, again and again, makes one.
_TORCHS_OWN = {id(value): value for module in (optim, lr_scheduler) for value in vars(module).values()}
_lasting: list[_Traced] = []


def _make_recording(cls: Any) -> Any:
    """Let a class that is being defined record its own constructions; it stays the class it is."""
    original = cls.__init__

    @functools.wraps(original)
    def __init__(self: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it becomes one
        if type(self).__init__ is not cls.__init__:  # a subclass runs its own construction
            original(self, *args, **kwargs)
            return

        def initialise(*args: Any, **kwargs: Any) -> Any:
            if original is object.__init__:  # `__new__` took the arguments
                args, kwargs = (), {}
            original(self, *args, **kwargs)
            return self

        _record_call(type(self), initialise, args, kwargs)

    __init__._rebind_records = True  # type: ignore[attr-defined]  # the mark that `_records_itself` reads
    cls.__init__ = __init__
    return cls


def _records_itself(target: Any) -> bool:
    return isinstance(target, type) and hasattr(target.__dict__.get("__init__"), "_rebind_records")


def _is_being_defined(cls: type, frame: FrameType) -> bool:
    """Tell a class under `@trace`, which has no name in its module yet, from one that is passed."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        if part == "<locals>":
            return _is_on_its_lines(cls, frame.f_code, frame.f_lineno)
        found = getattr(found, part, None)
    return found is not cls


def _without_partials(
    target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
    """Move the arguments that partials hold among the others, so that they are recorded as those are."""
    while type(target) is functools.partial and all(value is not _PLACEHOLDER for value in target.args):
        target, args, kwargs = target.func, (*target.args, *args), {**target.keywords, **kwargs}
    return target, args, kwargs


# From Python 3.14 on, a partial may leave gaps.
_PLACEHOLDER = getattr(functools, "Placeholder", object())


def _schedules(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell a call that makes an optimizer or a scheduler, by what it calls or what it is given."""
    if isinstance(target, type) and issubclass(target, Optimizer | LRScheduler):
        return True
    return any(isinstance(value, Optimizer | LRScheduler) for value in (*args, *kwargs.values()))


def _is_on_its_lines(cls: type, code: CodeType, line: int) -> bool:
    """Tell whether a line of code is among those that define a class, where its decorators stand.

    The local variables would tell, too, but a frame that was asked for them keeps them alive.
    """
    for constant in code.co_consts:
        if not isinstance(constant, CodeType):
            continue
        if constant.co_qualname == cls.__qualname__:
            last = max((end for *_, end in constant.co_lines() if end is not None), default=0)
            if constant.co_firstlineno <= line <= last:
                return True
        elif constant.co_name.startswith("<generic") and _is_on_its_lines(cls, constant, line):
            return True
    return False


def _record_call(
    target: Callable[..., Any],
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call, and remember the call. `call` is what runs; `target` is what the record names."""
    if call is target:
        target, args, kwargs = _without_partials(target, args, kwargs)
        call = target
    problems = misfits(target, args, kwargs)
    if problems:
        raise ArgumentError("; ".join(message for _, message in problems))
    snapshot = Snapshot(
        copy_callables=_schedules(target, args, kwargs),
        is_copied=changed_by(target),
    )
    args = tuple(snapshot.rewind(value) for value in args)
    kwargs = {key: snapshot.rewind(value) for key, value in kwargs.items()}
    recorded_args = tuple(snapshot.take(value) for value in args)
    recorded_kwargs = {key: snapshot.take(value) for key, value in kwargs.items()}
    touched = optimizers_behind(snapshot.used) if snapshot.used else []
    for record, optimizer in touched:
        unseen = record.groups is not None and not record.groups.scheduled and has_scheduler(optimizer)
        notice(record, optimizer, scheduled=unseen)
    order = tick()
    result = call(*args, **kwargs)
    caller = sys._getframe(2)
    record = Record(
        target,
        recorded_args,
        recorded_kwargs,
        order,
        caller.f_code.co_filename,
        caller.f_lineno,
        snapshot.roots,
        snapshot.originals,
    )
    registry.put(result, record)
    if isinstance(result, Optimizer):
        note_groups(record, result)
    for earlier, optimizer in touched:
        note_groups(earlier, optimizer)
    return result
