"""How a callable may be called, and what is wrong with a call that it would not take."""

from __future__ import annotations

import contextlib
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

Location = tuple[str | int, ...]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class _Shape:
    """What of a signature decides whether a call fits, taken out of it once."""

    def __init__(self, signature: inspect.Signature) -> None:
        parameters = signature.parameters.values()
        kinds = {parameter.kind for parameter in parameters}
        self.positional = [item.name for item in parameters if item.kind in _POSITIONAL]
        self.keywords = frozenset(item.name for item in parameters if item.kind in _KEYWORD)
        self.takes_more = (inspect.Parameter.VAR_POSITIONAL in kinds, inspect.Parameter.VAR_KEYWORD in kinds)
        self.required = frozenset(
            item.name
            for item in parameters
            if item.default is inspect.Parameter.empty and item.kind not in _VARIADIC
        )

    def fits(self, given: int, kwargs: Mapping[str, Any]) -> bool:
        """Tell whether a call with so many positional arguments and these others fits."""
        if given > len(self.positional) and not self.takes_more[0]:
            return False
        by_position = self.positional[:given]
        names = kwargs.keys()
        if not self.takes_more[1] and not names <= self.keywords:
            return False
        if any(name in kwargs and name in self.keywords for name in by_position):
            return False
        return self.required <= {*by_position, *names}


_cache: WeakKeyDictionary[Any, tuple[inspect.Signature, _Shape] | None] = WeakKeyDictionary()


def signature_of(target: Callable[..., Any]) -> inspect.Signature | None:
    """Give the signature of a callable, or None where Python cannot tell it (some C functions)."""
    known = _known_of(target)
    return None if known is None else known[0]


def _known_of(target: Callable[..., Any]) -> tuple[inspect.Signature, _Shape] | None:
    try:
        return _cache[target]
    except (KeyError, TypeError):
        pass
    try:
        signature = inspect.signature(target)
        found = (signature, _Shape(signature))
    except (TypeError, ValueError):
        found = None
    with contextlib.suppress(TypeError):  # an object that cannot be hashed or referred to weakly
        _cache[target] = found
    return found


def name_of(target: object) -> str:
    """Name a callable as a person would: `SGD`, `make_optimizer`, `partial(SGD)`."""
    if (inner := getattr(target, "func", None)) is not None and not isinstance(target, type):
        return f"{type(target).__name__}({name_of(inner)})"
    return getattr(target, "__qualname__", None) or type(target).__qualname__


def suggest(name: str, known: Iterable[str]) -> str:
    """Say `, did you mean 'lr'?` where a known name is near, and nothing elsewhere."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""


def misfits(
    target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[Location, str]]:
    """List everything that keeps `target(*args, **kwargs)` from being called, each with its place."""
    known = _known_of(target)
    if known is None or known[1].fits(len(args), kwargs):
        return []
    return _compare(name_of(target), known[0], len(args), kwargs)


def _compare(
    name: str, signature: inspect.Signature, given: int, kwargs: Mapping[str, Any]
) -> list[tuple[Location, str]]:
    parameters = signature.parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    positional = [key for key, item in parameters.items() if item.kind in _POSITIONAL]
    accepted = [key for key, item in parameters.items() if item.kind in _KEYWORD]
    problems: list[tuple[Location, str]] = []
    if given > len(positional) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        problems.append(
            (
                ("args", len(positional)),
                f"{name} takes {len(positional)} positional arguments, {given} were given",
            )
        )
    by_position = set(positional[:given])
    for key in kwargs:
        if key in by_position and key in accepted:
            problems.append((("kwargs", key), f"{name} got {key!r} twice, by position and by name"))
        elif key not in accepted and inspect.Parameter.VAR_KEYWORD not in kinds:
            hint = suggest(key, accepted) or f"; it takes {', '.join(accepted) or 'none'}"
            problems.append((("kwargs", key), f"{name} has no argument {key!r}{hint}"))
    missing = [
        key
        for key, item in parameters.items()
        if item.default is inspect.Parameter.empty
        and item.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        and key not in by_position
        and key not in kwargs
    ]
    problems.extend(((), f"{name} needs the argument {key!r}") for key in missing)
    return problems


def locate_arguments(
    target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[Location, inspect.Parameter, Any]]:
    """Pair each given argument with its place and with the parameter of the signature that takes it."""
    signature = signature_of(target)
    if signature is None:
        return []
    parameters = list(signature.parameters.values())
    positional = [item for item in parameters if item.kind in _POSITIONAL]
    rest = next((p for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    extra = next((p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD), None)
    located: list[tuple[Location, inspect.Parameter, Any]] = []
    for index, value in enumerate(args):
        taker = positional[index] if index < len(positional) else rest
        if taker is not None:
            located.append((("args", index), taker, value))
    for key, value in kwargs.items():
        taker = signature.parameters.get(key)
        if taker is None or taker.kind not in _KEYWORD:
            taker = extra
        if taker is not None:
            located.append((("kwargs", key), taker, value))
    return located


def names_argument(target: Callable[..., Any], name: str) -> bool:
    """Tell whether `target` takes an argument of this name, by itself or through `**kwargs`."""
    signature = signature_of(target)
    if signature is None:
        return True
    parameter = signature.parameters.get(name)
    if parameter is not None and parameter.kind in _KEYWORD:
        return True
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())


def shortened(value: Any, most: int) -> str:
    """Show a value in few characters, and by its type if it cannot show itself (a tensor of bits)."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - whatever a stranger's repr raises, the tree around it can be read
        text = f"<{type(value).__name__}>"
    return text if len(text) <= most else f"{text[: most - 3]}..."
