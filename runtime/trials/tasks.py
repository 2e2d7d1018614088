"""Ready-made tasks for trials: what is done with a model once it is bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..binding.binding import Binding
    from ..binding.evaluation import Evaluation


def evaluate(binding: Binding) -> Evaluation:
    """Evaluate the model as it is.

    Args:
        binding: The evaluator on the trial's model.
    """
    return binding.evaluate()


def train_and_evaluate(
    binding: Binding, max_steps: int | None = None, max_epochs: int | None = None
) -> Evaluation:
    """Train the model within the limits given, then evaluate it.

    Args:
        binding: The evaluator on the trial's model.
        max_steps: The most steps of each optimizer.
        max_epochs: The most epochs; the training function must take them.
    """
    binding.train(max_steps=max_steps, max_epochs=max_epochs)
    return binding.evaluate()


def finetune_and_evaluate(binding: Binding) -> Evaluation:
    """Train the model for as long as its own training function does, then evaluate it.

    Args:
        binding: The evaluator on the trial's model.
    """
    binding.finetune()
    return binding.evaluate()
