"""Models by name: from `[NAME=]MODULE:FACTORY` to trials."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ...evaluator_schema.errors import ImportPathError, TrialError
from ..trials.tasks import evaluate, finetune_and_evaluate, train_and_evaluate
from ..trials.trial import Trial

if TYPE_CHECKING:
    from argparse import Namespace

_TASKS = {"train": train_and_evaluate, "finetune": finetune_and_evaluate, "evaluate": evaluate}


def trials_of(options: Namespace) -> list[Trial]:
    """One trial for each `--model`, named by what was given.

    Raises:
        ImportPathError: A path does not lead to anything.
        TrialError: What it leads to is no model, or the options do not fit the task.
    """
    trials: list[Trial] = []
    for given in options.models:
        name, equals, path = given.rpartition("=")
        model = imported(path)
        taken = sum(trial.name == (name or path) for trial in trials)
        try:
            trials.append(
                Trial(
                    model=model,
                    task=_TASKS[options.task],
                    max_steps=options.max_steps,
                    max_epochs=options.max_epochs,
                    name=(name or path) + (f"-{taken + 1}" if taken and not equals else ""),
                    missing=options.missing,
                )
            )
        except ValidationError as error:
            told = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
            raise TrialError(f"--model {given}: {told}") from None
    return trials


def imported(path: str) -> Any:
    """What `module:qualname` leads to. The user names it on their own command line, so anything may be.

    Raises:
        ImportPathError: It leads to nothing.
    """
    module, colon, qualname = path.partition(":")
    if not (module and colon and qualname):
        raise ImportPathError(f"{path!r} is no model: write MODULE:FACTORY, for instance my_models:small")
    try:
        found: Any = import_module(module)
    except Exception as error:
        raise ImportPathError(
            f"{path!r}: module {module!r} cannot be imported ({type(error).__name__}: {error}); install "
            "it, or call rebind from the folder where it lies"
        ) from error
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ImportPathError(f"{path!r}: {module} has no {part!r}") from None
    return found
