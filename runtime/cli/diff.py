"""`rebind diff`: where two files differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...serialization import inspect, load
from ...serialization.tree import printable
from .colour import show
from .keys import keys_of
from .outcomes import DONE, NEGATIVE, print_json

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from rich.text import Text

_NOTHING = object()


def command(options: Namespace) -> int:
    """List the differences; without a key, trust or allowed modules, those of the manifests."""
    keys = keys_of(options)
    paths = (options.first, options.second)
    opens = keys is not None or options.trusted or options.allow
    if opens:
        from ...evaluator_schema import diff

        first, second = (load(path, keys, options.trusted, allow=options.allow) for path in paths)
        found = diff(first, second)
    else:
        told_first, told_second = (inspect(path).model_dump(mode="json") for path in paths)
        found = list(differences(told_first, told_second))
    if options.json:
        told = [{"path": path, "first": shown(a), "second": shown(b)} for path, a, b in found]
        print_json({"compared": "evaluators" if opens else "manifests", "differences": told})
    else:
        for path, a, b in found:
            show(_painted(path, _line(a), _line(b)))
    return NEGATIVE if found else DONE


def differences(first: Any, second: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The paths at which two JSON values differ, with what each has there.

    >>> list(differences({"a": [1, 2], "b": 3}, {"a": [1, 5], "b": 3}))
    [('a.1', 2, 5)]
    """
    if isinstance(first, list) and isinstance(second, list):
        first, second = dict(enumerate(first)), dict(enumerate(second))
    if isinstance(first, dict) and isinstance(second, dict):
        for key in {**first, **second}:
            inside = f"{path}.{key}" if path else str(key)
            yield from differences(first.get(key, _NOTHING), second.get(key, _NOTHING), inside)
    elif first != second or type(first) is not type(second):
        yield path, first, second


def shown(value: Any) -> Any:
    """A value as JSON, or in words where JSON has no form for it."""
    if value is _NOTHING:
        return None
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
    return value


def _painted(path: str, first: str, second: str) -> Text:
    from rich.text import Text

    parts = ((path, "bold"), ": ", (first, "red"), " -> ", (second, "green"))
    pieces = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((printable(text), style) for text, style in pieces))


def _line(value: Any) -> str:
    return "(nothing)" if value is _NOTHING else repr(value)
