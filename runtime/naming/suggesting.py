"""Names that were not found: what they were probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# Comparing a name with this many others takes about 20 ms.
_COMPARED = 2000


def nearest(name: str, known: Iterable[str]) -> str:
    """Ask whether a near name was meant, or give an empty text."""
    names = list(known)
    inner = [other for other in names if other.endswith(f".{name}") or name.endswith(f".{other}")]
    near = inner[:1] or difflib.get_close_matches(name, names[:_COMPARED], n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def common_prefix(absent: Sequence[str], known: Iterable[str]) -> str | None:
    """Give the one prefix under which all absent names are known, or None."""
    names = set(known)
    prefixes = [other[: -len(absent[0])] for other in names if other.endswith(f".{absent[0]}")]
    fitting = [prefix for prefix in prefixes if all(prefix + name in names for name in absent)]
    return fitting[0] if len(fitting) == 1 else None


def quoted(names: Iterable[str], limit: int = 10) -> str:
    """List names in quotes, the first few of them."""
    listed = list(names)
    return ", ".join(map(repr, listed[:limit])) + ", ..." * (len(listed) > limit)
