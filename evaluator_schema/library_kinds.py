"""Telling the classes of a library by their names, without importing the library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def home_of(kind: Any, bases: Iterable[str], packages: Iterable[str]) -> str | None:
    """Tell which of some packages a class comes from.

    Args:
        kind: A class; anything else comes from none.
        bases: Names of classes, one of which it must be, or derive from.
        packages: Where these classes are defined, directly or in a module inside.
    """
    for base in kind.__mro__ if isinstance(kind, type) else ():
        if base.__name__ in bases:
            for package in packages:
                if base.__module__ == package or base.__module__.startswith(f"{package}."):
                    return package
    return None
