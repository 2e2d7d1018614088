"""Patches of the loss: layers around the user's criterion or training step."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

import torch

from ...evaluator_schema.checking.signatures import name_of, signature_of
from ...evaluator_schema.errors import TrainingError
from ...evaluator_schema.values import is_namedtuple
from .handles import Handle

Criterion = Callable[..., Any]
Patch = Callable[..., Any]


class PatchedCriterion:
    """The user's criterion or training step, with patches around it that may come and go as it is used.

    What is not called is the criterion's own: its attributes are read and written through this.

    Args:
        criterion: The user's own.
        may_skip: Whether it may return None, for a batch that is not trained on; no patch is called then.
    """

    def __init__(self, criterion: Criterion, *, may_skip: bool = False) -> None:
        self._rebind_criterion = criterion
        self._rebind_may_skip = may_skip
        self._rebind_layers: list[_Layer] = []
        self._rebind_top = criterion
        self._rebind_watched = False
        self._rebind_last_loss: torch.Tensor | None = None

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Compute the loss, patches included."""
        output = self._rebind_top(*inputs, **named)
        if self._rebind_watched:
            with suppress(TrainingError):  # unpatched, it may return whatever the training function likes
                self._rebind_last_loss = loss_in(output).detach()
        return output

    @property
    def is_patched(self) -> bool:
        """Whether there is a patch."""
        return bool(self._rebind_layers)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_rebind"):  # while it is copied, before it has a criterion
            raise AttributeError(name)
        if name == "forward":
            return self.__call__
        value = getattr(self._rebind_criterion, name)
        if getattr(value, "__self__", None) is self._rebind_criterion:
            return _Chaining(value, self)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_rebind"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._rebind_criterion, name, value)

    def __repr__(self) -> str:
        return f"{name_of(self._rebind_criterion)} with {len(self._rebind_layers)} patches"

    def _rebind_add(self, wrap: Callable[[_Layer], Criterion], what: str) -> Handle:
        layer = _Layer(self._rebind_top)
        layer.wrapped = wrap(layer)
        if not callable(layer.wrapped):
            raise TrainingError(
                f"{name_of(wrap)} returned {type(layer.wrapped).__name__}; a criterion patch takes the "
                "criterion and returns another one: patch_criterion(lambda criterion: ...)"
            )
        self._rebind_layers.append(layer)
        self._rebind_top = layer.wrapped
        return Handle(lambda: self._rebind_remove(layer), what)

    def _rebind_remove(self, layer: _Layer) -> None:
        self._rebind_layers = [kept for kept in self._rebind_layers if kept is not layer]
        self._rebind_go_around(self._rebind_criterion)

    def _rebind_go_around(self, criterion: Criterion) -> None:
        self._rebind_criterion = top = criterion
        for kept in self._rebind_layers:
            kept.below = top
            top = kept.wrapped
        self._rebind_top = top


class _Layer:
    """What one patch gets as its criterion: whatever is below it as the training runs.

    So a patch is applied once, and others below it may go without its being applied anew.
    """

    def __init__(self, below: Criterion) -> None:
        self.below = below
        self.wrapped: Criterion = below

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.below(*inputs, **named)

    def __getattr__(self, name: str) -> Any:
        if name in ("below", "wrapped"):  # while it is copied
            raise AttributeError(name)
        return getattr(self.below, name)


class _Chaining:
    """A method of the criterion. `criterion = criterion.to(device)` is to keep the patches."""

    def __init__(self, method: Callable[..., Any], patched: PatchedCriterion) -> None:
        self._method = method
        self._patched = patched

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._method(*args, **kwargs)
        return self._patched if result is self._patched._rebind_criterion else result


@contextmanager
def going_around(patched: PatchedCriterion, criterion: Criterion) -> Iterator[None]:
    """Let the patches go around something else for a while: what computes the loss in a training."""
    before = patched._rebind_criterion
    patched._rebind_go_around(criterion)
    try:
        yield
    finally:
        patched._rebind_go_around(before)


def patch_loss(patched: PatchedCriterion, patch: Patch) -> Handle:
    """Let `patch(loss, *inputs)` decide the loss; the last patch is outermost.

    Args:
        patched: The criterion or training step.
        patch: Gets the loss, and of what the criterion got as many values as it requires.
    """
    if not callable(patch):
        raise TrainingError(f"patch_loss takes a function of (loss, *inputs), not {patch!r}")
    wanted = _wanted_inputs(patch)
    order = _parameters_of(patched._rebind_criterion)

    def wrap(layer: _Layer) -> Criterion:
        def with_patch(*inputs: Any, **named: Any) -> Any:
            output = layer.below(*inputs, **named)
            if output is None and patched._rebind_may_skip:
                return None
            given = _in_order(order, inputs, named) if named else inputs
            # Nearly always it is the loss itself, and two calls less are seen in each step.
            loss = output if isinstance(output, torch.Tensor) else loss_in(output)
            new = patch(loss, *given[:wanted])
            if not isinstance(new, torch.Tensor):
                raise TrainingError(
                    f"loss patch {name_of(patch)} returned {type(new).__name__}; it must return the new loss"
                )
            return new if loss is output else with_loss(output, new)

        return with_patch

    return patched._rebind_add(wrap, f"loss patch {name_of(patch)}")


def patch_criterion(patched: PatchedCriterion, wrap: Callable[[Criterion], Criterion]) -> Handle:
    """Replace the criterion by `wrap(criterion)`."""
    if not callable(wrap):
        raise TrainingError(f"patch_criterion takes a function of the criterion, not {wrap!r}")
    return patched._rebind_add(wrap, f"criterion patch {name_of(wrap)}")


def loss_in(output: Any) -> torch.Tensor:
    """Find the loss in what a criterion or training step returned.

    Args:
        output: The loss; a tuple or list with the loss first; a named tuple, mapping, dataclass or other
            object with `loss`.

    Raises:
        TrainingError: There is no loss to be found.
    """
    if isinstance(output, torch.Tensor):
        return output
    if is_namedtuple(output) and output:
        loss = getattr(output, _loss_field(output))
    elif isinstance(output, tuple | list) and output:
        loss = output[0]
    elif isinstance(output, Mapping) and "loss" in output:
        loss = output["loss"]
    else:
        loss = getattr(output, "loss", None)
    if not isinstance(loss, torch.Tensor):
        raise TrainingError(_unreachable(output))
    return loss


def with_loss(output: Any, loss: torch.Tensor) -> Any:
    """Put another loss where `loss_in` found one, and keep everything else as it is.

    Returns:
        A value of the same type.

    Raises:
        TrainingError: The object computes its loss from something else.
    """
    if isinstance(output, torch.Tensor):
        return loss
    if is_namedtuple(output):
        return output._replace(**{_loss_field(output): loss})
    if isinstance(output, tuple | list):
        return type(output)([loss, *output[1:]])
    if isinstance(output, Mapping) and "loss" in output:
        return _with_entry(output, loss)
    copied = copy.copy(output)
    try:
        object.__setattr__(copied, "loss", loss)  # a frozen dataclass as well
    except AttributeError:
        raise TrainingError(_unreachable(output)) from None
    return copied


def _loss_field(output: Any) -> str:
    fields: tuple[str, ...] = output._fields
    return "loss" if "loss" in fields else fields[0]


def _with_entry(output: Mapping[str, Any], loss: torch.Tensor) -> Any:
    if isinstance(output, MutableMapping):
        copied = copy.copy(output)
        copied["loss"] = loss
        return copied
    return type(output)({**output, "loss": loss})  # type: ignore[call-arg]  # as mappings are made


def _unreachable(output: Any) -> str:
    return (
        f"the loss patch cannot reach the loss in a {type(output).__name__}: return a tensor, a tuple with "
        "the loss first, or a mapping, named tuple or dataclass with 'loss'"
    )


def _wanted_inputs(patch: Patch) -> int | None:
    """Count the inputs that a patch requires after the loss; None for all that there are.

    What has a default keeps it, as in `lambda loss, scale=scale: scale * loss`.
    """
    signature = signature_of(patch)
    if signature is None:
        return None
    parameters = signature.parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    required = [p for p in parameters if p.kind in _POSITIONAL and p.default is inspect.Parameter.empty]
    return max(len(required) - 1, 0)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _parameters_of(criterion: Criterion) -> tuple[str, ...]:
    """Name what a criterion takes, in its order."""
    signature = signature_of(criterion.forward if isinstance(criterion, torch.nn.Module) else criterion)
    return tuple(signature.parameters) if signature is not None else ()


def _in_order(order: tuple[str, ...], inputs: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give inputs as if all had been given by position, whatever the order in which they were named."""
    places = {name: place for place, name in enumerate(order)}
    return (*inputs, *(named[name] for name in sorted(named, key=lambda n: places.get(n, len(order)))))
