"""Hooks on modules and gradients, and collections that keep what passes through a module."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.nn import Module

from ..evaluator_schema.errors import TrainingError
from .handles import Handle

Reduction = Literal["mean"] | Callable[[Any, Any], Any]
Source = Literal["output", "input", "grad_output"]


class Hook:
    """A hook of ours on a model. A copy of the model, or a pickle of it, gets one that does nothing."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> _NoHook:
        return _NoHook()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _NoHook, ()


class _NoHook:
    """What is left of a hook in a copy of its model."""

    def __call__(self, *_: Any) -> None:
        return None


class Collection:
    """What passed through a module, within a bound on memory. Made by `Binding.collect`.

    Args:
        keep: How many values to keep, the last ones.
        reduce: `"mean"` keeps the running mean over all values, of any floating dtype; a function of the
            state (None at first) and a value keeps what it returns.
    """

    def __init__(self, keep: int | None = None, reduce: Reduction | None = None) -> None:
        if (keep is None) == (reduce is None):
            raise TrainingError(
                "collect needs a bound: keep=n for the last n values, or reduce= for one of all"
            )
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
            raise TrainingError(f"keep must be a number from 1 up, not {keep!r}")
        if reduce is not None and reduce != "mean" and not callable(reduce):
            raise TrainingError(f"reduce must be 'mean' or a function of (state, value), not {reduce!r}")
        self._kept: deque[Any] = deque(maxlen=keep or 1)
        self._reduce = reduce
        self.count = 0
        """How many values have passed."""
        self.handle: Handle | None = None

    def add(self, value: Any) -> None:
        """Take one value."""
        value = _detached(value)
        self.count += 1
        if self._reduce is None:
            self._kept.append(value)
        elif callable(self._reduce):
            self._kept.append(self._reduce(self._kept[0] if self._kept else None, value))
        elif not self._kept:
            self._kept.append(value.clone())
        else:
            self._kept[0] += (value - self._kept[0]) / self.count

    def values(self) -> list[Any]:
        """Give the values that are kept, oldest first; of a reduction, its one state."""
        return list(self._kept)

    @property
    def value(self) -> Any:
        """The newest value, or the state of the reduction; None while nothing has passed."""
        return self._kept[-1] if self._kept else None

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.count = 0

    def revert(self) -> None:
        """Stop collecting; what is kept stays."""
        if self.handle is not None:
            self.handle.revert()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *_: object) -> None:
        self.revert()

    def __len__(self) -> int:
        return len(self._kept)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Collection: {len(self._kept)} kept of {self.count}>"


def hook_module(module: Module, call: Callable[..., Any], source: Source) -> Handle:
    """Register a hook that gets `(module, inputs, output)`, or the gradients for `grad_output`."""
    hook = Hook(call)
    if source == "grad_output":
        registered = module.register_full_backward_hook(hook)
    else:
        registered = module.register_forward_hook(hook)
    return Handle(registered.remove, f"a hook on {type(module).__name__}")


def hook_gradient(parameter: torch.Tensor, call: Callable[[torch.Tensor], Any]) -> Handle:
    """Register a hook that gets the gradient, and may return another one."""
    return Handle(parameter.register_hook(call).remove, "a gradient hook")


def collect_from(module: Module, collection: Collection, source: Source) -> None:
    """Let a collection take what passes through a module."""

    def take(_: Module, inputs: Any, output: Any) -> None:
        # A backward hook gets (module, grad_input, grad_output): the last one is wanted there, too.
        value = inputs if source == "input" else output
        if isinstance(value, tuple) and len(value) == 1:
            (value,) = value
        collection.add(value)

    collection.handle = hook_module(module, take, source)


def _detached(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach()
    if type(value) in (tuple, list):
        return type(value)(_detached(item) for item in value)
    if type(value) is dict:
        return {key: _detached(item) for key, item in value.items()}
    return value
