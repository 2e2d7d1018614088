"""Values for people: a tree in plain text and in HTML, and a table in HTML."""

from __future__ import annotations

import contextlib
import html
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from .checking.signatures import name_of, shortened
from .construction import Construction
from .declarative.importing import import_path
from .values import Iterated, ModuleHole, ParameterHole, ParametersHole, Ref, is_namedtuple

# A node of a tree: its line, and the nodes under it.
Node = tuple[str, list["Node"]]

_MOST_ROWS = 60  # of a table


def tree(title: str, fields: dict[str, Any]) -> str:
    """Draw the fields of an evaluator as a tree of lines."""
    lines = [title]
    _draw(_nodes(fields), "", lines)
    return "\n".join(lines)


def html_tree(title: str, fields: dict[str, Any]) -> str:
    """Draw the same tree as nested lists, for notebooks."""
    return f"<div><strong>{html.escape(title)}</strong>{_html_list(_nodes(fields))}</div>"


def html_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw rows as a table for notebooks, with a column for each name and at most 60 rows.

    Args:
        title: Stands above it.
        rows: What stands in each row, by column; what is None or not there is left empty.
    """
    shown = rows[:_MOST_ROWS]
    columns = list(dict.fromkeys(name for row in shown for name, value in row.items() if value is not None))
    sides = {name: _side(row.get(name) for row in shown) for name in columns}
    head = "".join(f"<th{sides[name]}>{html.escape(name)}</th>" for name in columns)
    cells = ("".join(f"<td{sides[name]}>{_cell(row.get(name))}</td>" for name in columns) for row in shown)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    more = f"<p>and {len(rows) - len(shown):,} more</p>" if len(rows) > len(shown) else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if columns else ""
    return f"<div><strong>{html.escape(title)}</strong>{table}{more}</div>"


def _side(values: Iterable[Any]) -> str:
    """How a column is set: numbers to the right, and all else to the left, whatever the notebook does."""
    numbers = all(isinstance(value, int | float) for value in values if value is not None)
    return f' style="text-align: {"right" if numbers else "left"}"'


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, BaseException):
        return html.escape(textwrap.shorten(f"{type(value).__name__}: {value}", 120, placeholder=" ..."))
    return html.escape(value if isinstance(value, str) else brief(value))


def _nodes(fields: dict[str, Any]) -> list[Node]:
    return [_node(name, value) for name, value in fields.items() if value is not None]


def _draw(nodes: list[Node], indent: str, lines: list[str]) -> None:
    for index, (line, inner) in enumerate(nodes):
        last = index == len(nodes) - 1
        lines.append(f"{indent}{'└── ' if last else '├── '}{line}")
        _draw(inner, indent + ("    " if last else "│   "), lines)


def _html_list(nodes: list[Node]) -> str:
    items = "".join(f"<li><code>{html.escape(line)}</code>{_html_list(inner)}</li>" for line, inner in nodes)
    return f"<ul>{items}</ul>" if items else ""


def _node(name: str, value: Any) -> Node:
    if isinstance(value, Construction):
        line, inner = _construction_node(value)
        return f"{name}: {line}", inner
    if isinstance(value, tuple) and value and all(isinstance(v, Construction) for v in value):
        return name, [_construction_node(item) for item in value]
    return f"{name}: {brief(value)}", []


def _construction_node(value: Construction) -> Node:
    shown: list[str] = []
    inner: list[Node] = []
    for key, argument in (*enumerate(value.args), *value.kwargs.items()):
        items = argument.items if isinstance(argument, Iterated) else argument
        label = f"{key}=" if isinstance(key, str) and key not in ("params", "optimizer") else ""
        if isinstance(items, list) and items and all(isinstance(item, dict) for item in items):
            inner += [(f"group {i}: {_group(group)}", []) for i, group in enumerate(items)]
            shown.append(f"{label}{len(items)} groups")
        elif isinstance(items, list | tuple) and any(isinstance(i, Construction) for i in items):
            inner += [_construction_node(i) if isinstance(i, Construction) else (brief(i), []) for i in items]
            shown.append(f"{label}{len(items)} below")
        elif isinstance(argument, Construction):
            inner.append(_construction_node(argument))
            shown.append(f"{label}{name_of(argument.target)} below")
        else:
            shown.append(f"{label}{brief(argument)}")
    inner += [(f"later, group {c.group}: {_group(c.options)}", []) for c in value.changes]
    return f"{name_of(value.target)}({', '.join(shown)})", inner


def _group(options: dict[str, Any]) -> str:
    return ", ".join(
        brief(value) if key == "params" else f"{key}={brief(value)}" for key, value in options.items()
    )


def brief(value: Any) -> str:
    """Say in a few words what a recorded value is."""
    if isinstance(value, Iterated):
        return brief(value.items)
    if isinstance(value, ParametersHole):
        return f"{len(value.names)} {'named ' if value.named else ''}parameter{'s' * (len(value.names) != 1)}"
    if isinstance(value, ParameterHole):
        return f"parameter {value.name!r}"
    if isinstance(value, ModuleHole):
        return f"module {value.name!r}" if value.name else "the model"
    if isinstance(value, Ref):
        return f"#{value.order}"
    if isinstance(value, torch.Tensor):
        with contextlib.suppress(RuntimeError):  # bits, packed integers and the meta device have no number
            if value.numel() == 1:
                return f"tensor({value.item()})"
        return f"tensor {str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if is_namedtuple(value) or type(value) in (list, tuple):
        items = ", ".join(map(brief, value[:4])) + (", ..." if len(value) > 4 else "")
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    if callable(value):
        return import_path(value) or (repr(value) if not hasattr(value, "__qualname__") else name_of(value))
    return shortened(value, 80)
