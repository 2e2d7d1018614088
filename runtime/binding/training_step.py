"""What loss patches go around where a trainer computes the loss: nothing, as long as none trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...evaluator_schema.errors import TrainingError


def training_step_of_a_trainer(what: str) -> Callable[..., Any]:
    """Give what stands where a training will put its own step (`going_around`).

    Args:
        what: What computes the loss, for people.
    """

    def training_step(batch: Any, *rest: Any) -> Any:  # noqa: ARG001 - as it will be called
        raise TrainingError(f"{what} runs only while its trainer trains")

    return training_step
