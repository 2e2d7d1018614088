"""Loss patches on a Trainer: around `compute_loss` in training steps, whatever the loss was divided by."""

from __future__ import annotations

import copy
from typing import Any

import torch

from ...evaluator_schema.errors import TrainingError
from ..patching.loss_patches import PatchedCriterion, going_around, loss_in, with_loss


def patch_losses(trainer: Any, criterion: PatchedCriterion) -> None:
    """Let what a criterion's patches say be the loss of each training step of a Trainer.

    With `gradient_accumulation_steps`, a step adds up the losses of several batches. Where the Trainer
    divides each by their number, it divides what a patch added, too. Where the model or `compute_loss_func`
    has divided by the number of items in all of the batches (`num_items_in_batch`), patches get the mean over
    their own batch, and what they return is weighed by the batch's share of the items. So patches give what
    they would give on one large batch, either way. Losses in an evaluation are not patched.

    Args:
        trainer: The fresh Trainer. Two methods of this one object are replaced.
        criterion: Goes around each batch's `compute_loss`.

    Raises:
        TrainingError: In a training step that computes its loss elsewhere, where there is a patch.
    """
    training_step, compute_loss = trainer.training_step, trainer.compute_loss
    training, reached = [False], [False]

    def patched_training_step(*args: Any, **kwargs: Any) -> Any:
        training[0], reached[0] = True, False
        try:
            loss = training_step(*args, **kwargs)
        finally:
            training[0] = False
        if criterion.is_patched and not reached[0]:
            raise TrainingError(_UNREACHED.format(kind=type(trainer).__name__))
        return loss

    def patched_compute_loss(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not training[0]:
            return compute_loss(model, inputs, *args, **kwargs)
        reached[0] = True
        weight = _weight(trainer, inputs, args[1] if len(args) > 1 else kwargs.get("num_items_in_batch"))
        # The Trainer takes the labels out of the inputs where it passes them to a loss of the user's own.
        batch = copy.copy(inputs)
        computed: list[Any] = []

        def as_mean(_: Any) -> Any:
            computed.append(compute_loss(model, inputs, *args, **kwargs))
            return _scaled(computed[0], None if weight is None else 1 / weight)

        with going_around(criterion, as_mean):
            patched = criterion(batch)
        # What no patch has touched stays as it is, to the last bit.
        return _scaled(patched, weight) if criterion.is_patched else computed[0]

    trainer.training_step, trainer.compute_loss = patched_training_step, patched_compute_loss


_UNREACHED = (
    "the loss is patched, and training_step of {kind} did not call self.compute_loss(model, inputs), around "
    "which the patches go; let it call that"
)


def _scaled(output: Any, factor: torch.Tensor | float | None) -> Any:
    return output if factor is None else with_loss(output, loss_in(output) * factor)


def _weight(trainer: Any, inputs: Any, num_items: Any) -> torch.Tensor | float | None:
    """Give the share that a batch's loss has in that of the step; None where the Trainer divides by itself.

    This is `Trainer.training_step`'s own condition, and `Trainer._get_num_items_in_batch`'s way to count.
    """
    is_scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
    if is_scaled is None:
        accepts = trainer.model_accepts_loss_kwargs and num_items is not None
        is_scaled = accepts or trainer.compute_loss_func is not None
    if not is_scaled:
        return None
    count = _count_items(trainer, inputs)
    if count is None or num_items is None or (isinstance(num_items, torch.Tensor) and num_items.dim() > 0):
        return 1 / int(trainer.current_gradient_accumulation_steps)
    # Each process gets its share of all items, times the processes over which gradients are averaged.
    averages = trainer.args.average_tokens_across_devices
    processes = trainer.accelerator.num_processes // trainer.get_tp_size() if averages else 1
    # A batch without any item has a loss of 0 and no part in the mean: it must not become NaN on the way.
    share: torch.Tensor = count.clamp(min=1e-6) * processes / num_items
    return share


def _count_items(trainer: Any, inputs: Any) -> torch.Tensor | None:
    labels = inputs.get("shift_labels", inputs.get("labels"))
    if not isinstance(labels, torch.Tensor):
        return None
    if "shift_labels" not in inputs and getattr(trainer, "_loss_shifts_labels", False):
        labels = labels[..., 1:]
    return labels.ne(-100).sum()
