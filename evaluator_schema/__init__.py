"""What an evaluator is: pydantic models, tracing, validation. No pickle, no process, no trainer."""

from . import errors
from .construction import Construction, GroupChange
from .errors import RebindError
from .evaluator import Evaluator, diff
from .recording import Record
from .torch_evaluator import TorchEvaluator
from .tracing import construction_of, is_traced, trace

__all__ = [
    "Construction",
    "Evaluator",
    "GroupChange",
    "RebindError",
    "Record",
    "TorchEvaluator",
    "construction_of",
    "diff",
    "errors",
    "is_traced",
    "trace",
]
