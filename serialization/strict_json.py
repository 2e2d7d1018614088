"""JSON from a stranger: no duplicate keys, no deep nesting, no numbers that are not numbers."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from ..evaluator_schema.errors import CorruptedError, TooLargeError
from .cures import GET_AGAIN
from .format import MAX_JSON_BYTES, MAX_JSON_DEPTH


def parse_json(text: bytes | str, where: str, *, cure: str = GET_AGAIN) -> Any:
    """The value that `text` stands for.

    Args:
        text: JSON, as UTF-8 bytes or a string.
        where: What the text is, for the message.
        cure: What to do if it is not the JSON that rebind writes.

    Raises:
        CorruptedError: It is not JSON, or JSON that no rebind writes.
        TooLargeError: It is longer than any that rebind writes.
    """
    if len(text) > MAX_JSON_BYTES:
        raise TooLargeError(
            f"The {where} has {len(text):,} bytes, and rebind writes and reads {MAX_JSON_BYTES:,} at most. "
            "Put large data into tensors or arrays, and many small tensors into one."
        )
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        value = _DECODER.decode(decoded)
    except (ValueError, RecursionError) as error:
        raise CorruptedError(f"The {where} is not the JSON that rebind writes: {error}. {cure}") from None
    if decoded.count("[") + decoded.count("{") > MAX_JSON_DEPTH:
        _check_depth(value, where, cure)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)


def _check_depth(value: Any, where: str, cure: str) -> None:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise CorruptedError(f"The {where} nests more than {MAX_JSON_DEPTH} levels deep. {cure}")
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
