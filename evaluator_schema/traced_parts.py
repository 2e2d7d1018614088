"""Fields that hold the construction of a library's object, such as a trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .checking.problems import Problems
from .checking.signatures import name_of
from .construction import Construction
from .specs import check_shipping
from .tracing.recording import registry


def note_untraced(field: str, value: Any, is_part: Callable[[Any], bool], problems: Problems) -> None:
    """Note a live object that was not built by a traced call, or a class in the place of its object.

    Args:
        field: The field's name.
        value: What was passed for it.
        is_part: Whether a class is of the kind that the field takes.
        problems: Where to note it.
    """
    if is_part(type(value)) and registry.get(value) is None:
        kind = type(value).__name__
        problems.add(
            (field,),
            f"this {kind} was not built by a traced call, so it is not known how to build another one; "
            f"write trace({kind})(...) where it is built",
            value,
            "not_traced",
        )
    elif isinstance(value, type) or getattr(value, "_rebind_target", None) is not None:
        problems.add((field,), f"pass what {name_of(value)} builds, and not {name_of(value)} itself", value)


def checked_part(field: str, value: Any, base: str, is_part: Callable[[Any], bool], example: str) -> Any:
    """Check that a field holds the construction of an object of a library, and that it can be shipped.

    Args:
        field: The field's name.
        value: What was captured for it.
        base: The class that its target must be or derive from, by name.
        is_part: Whether a class does.
        example: How it is written.

    Raises:
        ValueError: It holds anything else.
        ValidationError: It cannot be shipped.
    """
    if not isinstance(value, Construction):
        found = "nothing" if value is None else type(value).__name__
        raise ValueError(f"{field} must be a traced {base}, not {found}: {example}")
    target = value.target
    if isinstance(target, type) and not is_part(target):
        raise ValueError(f"{field} must be a traced {base}, and {name_of(target)} is none: {example}")
    problems = Problems()
    check_shipping(field, value, problems)
    # The paths of the problems start at the field already.
    problems.raise_if_any(field)
    return value
