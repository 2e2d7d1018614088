"""Hooks on modules and gradients, and collections that keep what passes through a module."""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import Module

from ...evaluator_schema.checking.signatures import name_of
from ...evaluator_schema.errors import TrainingError
from ...evaluator_schema.values import map_container
from ..naming.placing import is_sharded
from .handles import Handle, Revertible

Reduction = Literal["mean"] | Callable[[Any, Any], Any]
Source = Literal["output", "input", "grad_output"]


class Hook:
    """A hook of ours on a model. A copy of the model, or a pickle of it, gets one that does nothing.

    What the copy gets is of the standard library, so that a pickled model loads where this library is not.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        """Call what is hooked in."""
        return self._call(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        """Give a callable that takes anything and returns None."""
        return getattr, (contextlib.nullcontext(), "__exit__")


class Collection(Revertible):
    """What passed through a module, within a bound on memory. Made by `Binding.collect`.

    Values are copies without history: neither an operation in place that follows nor a graph of gradients
    that would stay alive is in them.

    Args:
        keep: How many values to keep, the last ones.
        reduce: `"mean"` keeps the running mean over all values, which are tensors of one shape, in float32 or
            better; a function of the state (None at first) and a value keeps what it returns.
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
        self.count: int = 0
        """How many values have passed."""
        self.handle: Handle | None = None

    def add(self, value: Any) -> None:
        """Take one value.

        Args:
            value: What passed: a tensor, or tensors in containers. Of a mean, a tensor of one shape always.
        """
        value = _copied(value)
        if self._reduce is None:
            self._kept.append(value)
        elif callable(self._reduce):
            self._kept.append(self._reduce(self._kept[0] if self._kept else None, value))
        else:
            self._add_to_mean(value)
        self.count += 1

    def _add_to_mean(self, value: Any) -> None:
        shape = tuple(self._kept[0].shape) if self._kept else None
        if not isinstance(value, torch.Tensor) or shape not in (None, tuple(value.shape)):
            raise TrainingError(
                f"reduce='mean' needs tensors of one shape; here {_brief(value)} follows {shape}. Use "
                "reduce=function of (state, value), which may first take the mean over the batch"
            )
        wide = value.to(torch.promote_types(value.dtype, torch.float32))
        if self._kept:
            self._kept[0] += (wide - self._kept[0]) / (self.count + 1)
        else:
            self._kept.append(wide)

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

    def __len__(self) -> int:
        return len(self._kept)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Collection: {len(self._kept)} kept of {self.count}>"


def hook_module(module: Module, call: Callable[..., Any], source: Source) -> Handle:
    """Register a hook that gets `(module, inputs, output)`, or the gradients for `grad_output`."""
    _require_callable(call)
    hook = Hook(call)
    if source != "grad_output":
        registered = module.register_forward_hook(hook)
        return Handle(registered.remove, f"a hook on {type(module).__name__}")
    registered = module.register_full_backward_hook(hook)

    def remove() -> None:
        registered.remove()
        forget_backward_kind(module)

    return Handle(remove, f"a backward hook on {type(module).__name__}")


def forget_backward_kind(module: Module) -> None:
    """Let a module without backward hooks be as if it had never had one.

    torch remembers which kind it had, and then refuses hooks of the other one.
    """
    if not module._backward_hooks and module._is_full_backward_hook is not None:
        module._is_full_backward_hook = None


def hook_gradient(parameter: torch.Tensor, call: Callable[[torch.Tensor], Any]) -> Handle:
    """Register a hook that gets the gradient, and may return another one."""
    _require_callable(call)
    if not parameter.requires_grad:
        raise TrainingError("a frozen parameter (requires_grad is False) has no gradient to hook")
    if is_sharded(parameter):
        return _hook_sharded_gradient(parameter, call)
    registered = parameter.register_hook(call)  # type: ignore[no-untyped-call]  # torch does not annotate it
    return Handle(registered.remove, "a gradient hook")


def _hook_sharded_gradient(parameter: torch.Tensor, call: Callable[[torch.Tensor], Any]) -> Handle:
    # FSDP2 sets the gradients of shards past autograd, whose hooks it does not run but for these.
    def pass_on(accumulated: torch.Tensor) -> None:
        if accumulated.grad is not None:
            replaced = call(accumulated.grad)
            if replaced is not None:
                accumulated.grad = replaced

    registered = parameter.register_post_accumulate_grad_hook(pass_on)  # type: ignore[no-untyped-call]  # likewise
    return Handle(registered.remove, "a gradient hook")


def collect_from(module: Module, collection: Collection, source: Source) -> Handle:
    """Let a collection take what passes through a module."""
    if source == "grad_output":
        return _collect_gradients(module, collection)

    def take(_: Module, inputs: Any, output: Any) -> None:
        value = inputs if source == "input" else output
        if isinstance(value, tuple) and len(value) == 1:
            (value,) = value
        collection.add(value)

    return hook_module(module, take, source)


def _collect_gradients(module: Module, collection: Collection) -> Handle:
    """Take the gradients of a module's outputs, in the structure of the outputs.

    Hooks on the outputs, and no backward hook of the module: that one warns where no input has a gradient,
    as in every first layer, and does not see outputs in a mapping.
    """

    def expect(_: Module, __: Any, output: Any) -> None:
        outputs: list[torch.Tensor] = []

        def place_of(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return _map_nested(value, place_of)
            if not value.requires_grad:
                return None
            outputs.append(value)
            return _Place(len(outputs) - 1)

        # What the hook holds is not the outputs themselves: they would hold the hook, which holds them.
        places = place_of(output)

        def take(gradients: Sequence[torch.Tensor | None]) -> None:
            if handle.active:
                collection.add(_filled(places, gradients))

        if outputs:
            torch.autograd.graph.register_multi_grad_hook(outputs, take)

    handle = hook_module(module, expect, "output")
    return handle


@dataclass(frozen=True)
class _Place:
    """Where the gradient of one output goes."""

    number: int


def _filled(places: Any, gradients: Sequence[torch.Tensor | None]) -> Any:
    if isinstance(places, _Place):
        return gradients[places.number]
    return _map_nested(places, lambda item: _filled(item, gradients))


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return _map_nested(value, _copied)


def _map_nested(value: Any, each: Callable[[Any], Any]) -> Any:
    if isinstance(value, MutableMapping):
        copied = copy.copy(value)
        for key, item in value.items():
            copied[key] = each(item)
        return copied
    return map_container(value, each)


def _require_callable(hook: Any) -> None:
    if not callable(hook):
        raise TrainingError(f"a hook is a function, not {name_of(hook)}")


def _brief(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
