"""How an evaluator becomes bytes: a signed file that is verified before anything in it runs.

What is here is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .environment import EnvironmentWarning
    from .evaluators import OpenedEvaluator, dumps, load, loads, open_evaluator, save
    from .examination import Examination, examine
    from .inspection import inspect, verify
    from .manifest import Manifest, TensorInfo
    from .packing import pack, pack_file, unpack, unpack_file
    from .signing import SigningKey

__all__ = [
    "EnvironmentWarning",
    "Examination",
    "Manifest",
    "OpenedEvaluator",
    "SigningKey",
    "TensorInfo",
    "dumps",
    "examine",
    "inspect",
    "load",
    "loads",
    "open_evaluator",
    "pack",
    "pack_file",
    "save",
    "unpack",
    "unpack_file",
    "verify",
]

_HOMES = {
    "EnvironmentWarning": "environment",
    "Examination": "examination",
    "Manifest": "manifest",
    "OpenedEvaluator": "evaluators",
    "SigningKey": "signing",
    "TensorInfo": "manifest",
    "dumps": "evaluators",
    "examine": "examination",
    "inspect": "inspection",
    "load": "evaluators",
    "loads": "evaluators",
    "open_evaluator": "evaluators",
    "pack": "packing",
    "pack_file": "packing",
    "save": "evaluators",
    "unpack": "packing",
    "unpack_file": "packing",
    "verify": "inspection",
}


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
