"""Which error a trial ends with, for each way in which it can go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...evaluator_schema.errors import (
    TrialCancelledError,
    TrialError,
    TrialFailedError,
    TrialMemoryError,
    TrialTimeoutError,
    UnpicklableResultError,
    UnpicklableTrialError,
    WorkerDiedError,
    WorkerEnvironmentError,
)
from ..pools.pool import Fate
from .answers import Status, describe

if TYPE_CHECKING:
    from ..pools.pool import Outcome
    from .answers import Answer


_MEMORY = {"MemoryError", "OutOfMemoryError"}  # Python's and torch's
_ALLOCATOR = "DefaultCPUAllocator"  # torch tells of the host's memory by a plain RuntimeError
_ENVIRONMENT = {"ImportError", "EnvironmentMismatchError", "MissingModuleError"}


class RemoteTraceback(Exception):  # noqa: N818 - it is the text of one, and never raised by itself
    """The traceback of an error in another process, as text: the cause of the error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def not_sent(name: str, error: Exception) -> TrialError:
    """The error of a trial that could not even be packed."""
    fault = UnpicklableTrialError(
        f"trial {name!r} cannot be sent to a worker: {describe(error)[0]}. Its model, task and "
        "rename have to be serializable; a model that is not can be built in the worker, by a "
        "factory: Trial(model=functools.partial(make_model, ...))"
    )
    fault.__cause__ = error
    return fault


def cancelled(name: str) -> TrialError:
    """The error of a trial that nobody wants any more."""
    return TrialCancelledError(f"trial {name!r} was cancelled")


def not_read(name: str, error: Exception) -> TrialError:
    """The error of a trial whose result came, and cannot be opened here."""
    fault = UnpicklableResultError(
        f"the result of trial {name!r} came back and cannot be opened in this process: "
        f"{describe(error)[0]}. Return numbers, strings, tensors and containers of them"
    )
    fault.__cause__ = error
    return fault


def damaged(name: str, error: Exception) -> TrialError:
    """The error of a trial whose answer is not what its worker sent."""
    fault = UnpicklableResultError(
        f"the answer about trial {name!r} was damaged on its way: {describe(error)[0]} If that happens "
        "again, look for what stands between the workers and this process"
    )
    fault.__cause__ = error
    return fault


def of_another(name: str, answer: Answer) -> TrialError:
    """The error of a trial for which the answer about another one came."""
    return UnpicklableResultError(
        f"the answer about trial {name!r} is that about {answer.trial!r}: the pool has mixed them up, or "
        "somebody who stands between it and this process. Run the trial again"
    )


def of_answer(name: str, answer: Answer) -> TrialError:
    """The error that a worker reports about a trial."""
    kinds = set(answer.error.split())
    match answer.status:
        case _ if kinds & _MEMORY or _ALLOCATOR in answer.detail:
            fault: TrialError = TrialMemoryError(
                f"trial {name!r} ran out of memory in process {answer.process_id}, after "
                f"{answer.seconds:.3g} s: {answer.detail}. Give the pool fewer workers, or the trial "
                "a smaller model or batch"
            )
        case Status.UNOPENED if kinds & _ENVIRONMENT:
            fault = WorkerEnvironmentError(
                f"trial {name!r} cannot be opened in its worker, process {answer.process_id}: "
                f"{answer.detail}. Give the workers the same Python, libraries and modules as here"
            )
        case Status.UNOPENED:
            fault = UnpicklableTrialError(
                f"trial {name!r} arrived in process {answer.process_id} and cannot be opened "
                f"there: {answer.detail}. Modules that it needs have to be importable there"
            )
        case Status.UNSENDABLE:
            fault = UnpicklableResultError(
                f"trial {name!r} ran, and its result cannot be sent back: {answer.detail}. Return "
                "numbers, strings, tensors and containers of them"
            )
        case _:
            fault = TrialFailedError(
                f"trial {name!r} raised {answer.detail} (in process {answer.process_id}, after "
                f"{answer.seconds:.3g} s)"
            )
    return _because(fault, answer.trace)


def of_outcome(name: str, outcome: Outcome, attempts: int) -> TrialError:
    """The error of a trial that no worker answered."""
    if outcome.fate is Fate.TIMED_OUT:
        fault: TrialError = TrialTimeoutError(
            f"trial {name!r} was {outcome.detail} and was stopped. Give it a longer timeout, or fewer steps"
        )
    elif outcome.fate is Fate.CANCELLED:
        fault = cancelled(name)
    elif outcome.fate is Fate.DIED:
        times = "once" if attempts == 1 else f"{attempts} times"
        fault = WorkerDiedError(
            f"trial {name!r} was begun {times}; the last time, its worker process "
            f"{outcome.process_id} {outcome.detail}, {outcome.seconds:.3g} s into it"
        )
    else:
        fault = TrialFailedError(f"trial {name!r} raised {outcome.detail}")
    return _because(fault, outcome.trace)


def _because(fault: TrialError, trace: str) -> TrialError:
    if trace:
        fault.__cause__ = RemoteTraceback(trace.rstrip())
    return fault
