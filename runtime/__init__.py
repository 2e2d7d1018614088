"""What an evaluator does: bind to a model, train, evaluate; trials in worker processes.

What is here is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .binding.binding import Binding, bind
    from .binding.evaluation import Evaluation
    from .binding.events import Event
    from .naming.matching import Report
    from .pools.dask import DaskPool
    from .pools.local import LocalPool
    from .pools.pool import Pool
    from .pools.ray import RayPool
    from .pools.serial import SerialPool
    from .trials.leases import trial_devices
    from .trials.results import Results, TrialResult
    from .trials.running import run_trials
    from .trials.tasks import evaluate, finetune_and_evaluate, train_and_evaluate
    from .trials.trial import Trial

__all__ = [
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
]

_HOMES = {
    "Binding": "binding.binding",
    "DaskPool": "pools.dask",
    "Evaluation": "binding.evaluation",
    "Event": "binding.events",
    "LocalPool": "pools.local",
    "Pool": "pools.pool",
    "RayPool": "pools.ray",
    "Report": "naming.matching",
    "Results": "trials.results",
    "SerialPool": "pools.serial",
    "Trial": "trials.trial",
    "TrialResult": "trials.results",
    "bind": "binding.binding",
    "evaluate": "trials.tasks",
    "finetune_and_evaluate": "trials.tasks",
    "run_trials": "trials.running",
    "train_and_evaluate": "trials.tasks",
    "trial_devices": "trials.leases",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
