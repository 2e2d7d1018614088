"""The training step of a trainer, as what loss patches go around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...evaluator_schema.errors import TrainingError


class TrainingStep:
    """Whatever computes the loss of a batch at this moment, set by the training that runs.

    Args:
        what: What computes it, for people.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.current: Callable[..., Any] | None = None

    def __call__(self, batch: Any, *rest: Any) -> Any:
        """Compute the loss of a batch."""
        if self.current is None:
            raise TrainingError(f"{self._what} runs only while its trainer trains")
        return self.current(batch, *rest)
