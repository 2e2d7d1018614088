"""What a loss patch gets as the batch where nobody knows it."""

from __future__ import annotations

from typing import Any, NoReturn

from ....evaluator_schema.errors import TrainingError


class NoBatch:
    """Stands for a batch that is not known, since the evaluator has a criterion, which gets no batch.

    Raises:
        TrainingError: It is used in any way: unpacked, indexed, or asked for an attribute.
    """

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # asked by Python's own protocols, which then ask for something else
            raise AttributeError(name)
        _refuse()

    def __iter__(self) -> NoReturn:
        _refuse()

    def __getitem__(self, key: Any) -> NoReturn:
        _refuse()

    def __repr__(self) -> str:
        return "<no batch: the evaluator has a criterion>"


def _refuse() -> NoReturn:
    raise TrainingError(
        "a loss patch uses the batch, and this evaluator has a criterion, which gets (output, target) and no "
        "batch: for algorithms that need it, such as distillers, create the evaluator with training_step=, a "
        "function of (batch, model)"
    )
