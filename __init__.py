"""rebind: train and evaluate a whole family of similar PyTorch models through one value.

Everything public is here, and is loaded when it is first used, so that `import rebind` costs next
to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluator_schema import *
    from .runtime import *
    from .serialization import *

__version__ = "0.1.0"

# Public name -> the room whose front door has it.
_ROOMS = {
    "Construction": "evaluator_schema",
    "Evaluator": "evaluator_schema",
    "TorchEvaluator": "evaluator_schema",
    "construction_of": "evaluator_schema",
    "diff": "evaluator_schema",
    "is_traced": "evaluator_schema",
    "trace": "evaluator_schema",
}


def __getattr__(name: str) -> Any:
    try:
        room = _ROOMS[name]
    except KeyError:
        raise AttributeError(f"module 'rebind' has no attribute {name!r}") from None
    value = getattr(import_module(f".{room}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
