"""What an evaluator has to learn from a model before NNI changes the names of its parameters."""

from __future__ import annotations

from torch.nn import Module

from ....evaluator_schema.evaluator import Evaluator


def recorded_on(evaluator: Evaluator, model: Module) -> Evaluator:
    """Give an evaluator whose optimizers are known by the names that this model's parameters have now.

    NNI's wrappers turn parameters into buffers and add some of their own (scores of masks, scales). An
    evaluator that asks the bound model for its optimizers would hand those to the user's optimizer. So what
    the model's own `configure_optimizers` gives is recorded now, while the model is the user's.

    Args:
        evaluator: Any evaluator. One that has no names for its parameters yet learns them.
        model: The model, before NNI wraps it.

    Raises:
        ValidationError: What `configure_optimizers` returns cannot be recorded. It may be created with
            `LightningEvaluator(..., model=module)`, which also attaches a trainer if that is asked for.
    """
    evaluator.resolve_names(model)
    if getattr(evaluator, "optimizers", ...) is not None:
        return evaluator
    return evaluator.from_fields(evaluator.fields(), context={"model": model})


def is_wrapped(model: Module) -> bool:
    """Tell whether a compressor of NNI has wrapped modules of the model: each has a `_nni_wrapper` then."""
    return any("_nni_wrapper" in module._modules for module in model.modules())
