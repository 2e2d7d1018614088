"""rebind: train and evaluate a whole family of similar PyTorch models through one value.

Everything public is here, and is loaded when it is first used, so that `import rebind` costs next
to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluator_schema import *  # noqa: F403 - the front doors list what is public
    from .runtime import *  # noqa: F403 - likewise
    from .serialization import *  # noqa: F403 - likewise

__version__ = "0.1.0"

# The public names, by the room whose front door has them.
_ROOMS = {
    "evaluator_schema": (
        "ArgumentError",
        "BindError",
        "CaptureError",
        "Construction",
        "CorruptedError",
        "EnvironmentMismatchError",
        "EvaluationError",
        "Evaluator",
        "GroupChange",
        "ImportPathError",
        "InvalidKeyError",
        "InvalidPayloadError",
        "LightningEvaluator",
        "MissingModuleError",
        "MissingParametersError",
        "NewerFormatError",
        "NotARebindFileError",
        "NotSerializableError",
        "RebindError",
        "Record",
        "SaveError",
        "SerializationError",
        "SignatureError",
        "TooLargeError",
        "TorchEvaluator",
        "TrainingError",
        "TransformersEvaluator",
        "TrialCancelledError",
        "TrialError",
        "TrialFailedError",
        "TrialMemoryError",
        "TrialTimeoutError",
        "TruncatedError",
        "UnknownKeyError",
        "UnpicklableResultError",
        "UnpicklableTrialError",
        "UnresolvedParametersError",
        "UnsignedError",
        "UntrustedPayloadError",
        "WorkerDiedError",
        "WorkerEnvironmentError",
        "WrongKeyError",
        "add_migration",
        "construction_of",
        "diff",
        "is_traced",
        "trace",
    ),
    "serialization": (
        "Manifest",
        "SigningKey",
        "dumps",
        "inspect",
        "load",
        "loads",
        "save",
        "verify",
    ),
    "runtime": (
        "Binding",
        "DaskPool",
        "Evaluation",
        "Event",
        "LocalPool",
        "Pool",
        "RayPool",
        "Report",
        "Results",
        "SerialPool",
        "Trial",
        "TrialResult",
        "bind",
        "evaluate",
        "finetune_and_evaluate",
        "run_trials",
        "train_and_evaluate",
        "trial_devices",
    ),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - one table of names, not two


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rebind' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
