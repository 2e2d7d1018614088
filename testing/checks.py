"""The two checks: a reinitialisation is exact, and a model comes back as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn import Module

from ..evaluator_schema import TorchEvaluator
from ..runtime import bind
from .curves import curve_of, explain_curves
from .direct import construct_directly


def assert_reinitialises_exactly(evaluator: TorchEvaluator, model: Module, *, steps: int = 12) -> None:
    """Check that binding gives what the user's own code would have built on this model.

    Two copies of the model are trained for a number of steps with made-up gradients: one with what `bind`
    gives, one with what `construct_directly` does, which makes the recorded calls by hand. Everything must be
    equal to the last bit: groups, options, names, defaults and state, before and after; every option of every
    group after each step; and all weights.

    Args:
        evaluator: The evaluator. Its training function is not called.
        model: A model with all recorded names. It is copied, and not changed.
        steps: How many steps to train.

    Raises:
        AssertionError: Something differs; the message says what, and where first.
    """
    evaluator.resolve_names(model)
    by_hand, bound = copy.deepcopy(model), copy.deepcopy(model)
    direct = curve_of(by_hand, *construct_directly(evaluator, by_hand), steps)
    with bind(evaluator, bound) as binding:
        rebound = curve_of(bound, binding.optimizers, binding.lr_schedulers, steps)
    difference = explain_curves(direct, rebound)
    if difference:
        raise AssertionError(f"direct construction gives something else than the binding, at {difference}")


@contextmanager
def assert_pristine(model: Module) -> Iterator[None]:
    """Check that a block leaves a model as it was, apart from the values of weights and buffers.

    The attributes of every module, with its hooks and training mode, must be the very same objects
    afterwards, parameters and buffers too; `requires_grad`, hooks of tensors and the absence of gradients
    as before.

    Args:
        model: The model.

    Raises:
        AssertionError: Something changed; the message lists everything that did. If the block itself raised,
            that is its cause.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1, 1)
        >>> with assert_pristine(model):
        ...     model.eval()
        Traceback (most recent call last):
        ...
        AssertionError: the model was changed: training (of the model itself)
    """
    before = _facts(model)
    cause: BaseException | None = None
    try:
        yield
    except BaseException as error:
        cause = error
        raise
    finally:
        after = _facts(model)
        changed = [
            key for key in {**before, **after} if before.get(key, _NOTHING) != after.get(key, _NOTHING)
        ]
        if changed:
            raise AssertionError(f"the model was changed: {', '.join(changed)}") from cause


class _Same:
    """Compares by identity, and keeps what it compares alive."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]  # it is only compared


_NOTHING = _Same(object())
_PLAIN = (bool, int, float, str, type(None))


def _facts(model: Module) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, module in model.named_modules():
        where = f"(of {name})" if name else "(of the model itself)"
        facts[f"class {where}"] = _Same(type(module))
        for key, value in vars(module).items():
            if isinstance(value, dict):
                facts[f"{key} {where}"] = [(inner, _Same(item)) for inner, item in value.items()]
            else:
                facts[f"{key} {where}"] = value if isinstance(value, _PLAIN) else _Same(value)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        facts[f"requires_grad (of {name})"] = tensor.requires_grad
        facts[f"grad (of {name})"] = tensor.grad is None
        for hooks in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            facts[f"{hooks} (of {name})"] = list(getattr(tensor, hooks, None) or ())
    return facts
