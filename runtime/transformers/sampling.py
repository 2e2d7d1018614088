"""An example input from the data of a Trainer, for those who trace the model's graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...evaluator_schema.errors import BindError


def sample_input(trainer: Any) -> Any:
    """Give one batch of the training data, or else of the evaluation data, without its labels.

    Raises:
        BindError: There is no data.
    """
    if trainer.train_dataset is not None:
        loader = trainer.get_train_dataloader()
    elif trainer.eval_dataset is not None and not isinstance(trainer.eval_dataset, Mapping):
        loader = trainer.get_eval_dataloader()
    else:
        raise BindError(
            "the recorded Trainer has no data to take an example from; pass dummy_input= to the evaluator"
        )
    batch = next(iter(loader))
    return {name: value for name, value in batch.items() if name not in trainer.label_names}
