"""Patches of the loss: layers around the user's criterion or training step."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch

from ..evaluator_schema.errors import TrainingError
from ..evaluator_schema.signatures import name_of, signature_of
from ..evaluator_schema.values import is_namedtuple
from .handles import Handle

Criterion = Callable[..., Any]
Patch = Callable[..., Any]


class PatchedCriterion:
    """The user's criterion or training step, with patches around it that may come and go as it is used.

    What is not called is the criterion's own: its attributes are found here as well.

    Args:
        criterion: The user's own.
    """

    def __init__(self, criterion: Criterion) -> None:
        self._rebind_criterion = criterion
        self._rebind_layers: list[_Layer] = []
        self._rebind_composed = criterion
        self._rebind_watched = False
        self.last_loss: torch.Tensor | None = None

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Compute the loss, patches included."""
        output = self._rebind_composed(*inputs, **named)
        if self._rebind_watched:
            self.last_loss = _loss_in(output)
        return output

    @property
    def is_patched(self) -> bool:
        """Whether there is a patch."""
        return bool(self._rebind_layers)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_rebind"):  # while it is copied, before it has a criterion
            raise AttributeError(name)
        return getattr(self._rebind_criterion, name)

    def __repr__(self) -> str:
        return f"{name_of(self._rebind_criterion)} with {len(self._rebind_layers)} patches"

    def _rebind_add(self, wrap: Callable[[Criterion], Criterion], what: str) -> Handle:
        layer = _Layer(wrap)
        self._rebind_layers.append(layer)
        try:
            self._rebind_compose()
        except BaseException:
            self._rebind_remove(layer)
            raise
        return Handle(lambda: self._rebind_remove(layer), what)

    def _rebind_remove(self, layer: _Layer) -> None:
        self._rebind_layers = [kept for kept in self._rebind_layers if kept is not layer]
        self._rebind_compose()

    def _rebind_compose(self) -> None:
        composed = self._rebind_criterion
        for layer in self._rebind_layers:
            composed = layer.wrap(composed)
            if not callable(composed):
                raise TrainingError(
                    f"{name_of(layer.wrap)} returned {type(composed).__name__}; a criterion patch takes the "
                    "criterion and returns another one: patch_criterion(lambda criterion: ...)"
                )
        self._rebind_composed = composed


@contextmanager
def watching_losses(criterion: PatchedCriterion | None, listeners: object) -> Iterator[None]:
    """Keep the last loss for the listeners of a training, if there are any.

    Args:
        criterion: The criterion of the training.
        listeners: Those who may want to know; nobody, if falsy.
    """
    if criterion is None:
        yield
        return
    criterion._rebind_watched = bool(listeners)
    try:
        yield
    finally:
        criterion._rebind_watched = False
        criterion.last_loss = None


def _loss_in(output: Any) -> torch.Tensor | None:
    found: list[torch.Tensor] = []

    def note(loss: torch.Tensor) -> torch.Tensor:
        found.append(loss.detach())
        return loss

    try:
        replace_loss(output, note)
    except TrainingError:  # nobody patches it, so it may be whatever the training function likes
        return None
    return found[0]


@dataclasses.dataclass(frozen=True, eq=False)
class _Layer:
    wrap: Callable[[Criterion], Criterion]


def patch_loss(patched: PatchedCriterion, patch: Patch) -> Handle:
    """Let `patch(loss, *inputs)` decide the loss; the last patch is outermost.

    Args:
        patched: The criterion or training step.
        patch: Gets the loss and what the criterion got; one that takes a single argument gets the loss.
    """
    if not callable(patch):
        raise TrainingError(f"patch_loss takes a function of (loss, *inputs), not {patch!r}")
    takes_inputs = _takes_more_than_one(patch)

    def wrap(criterion: Criterion) -> Criterion:
        def with_patch(*inputs: Any, **named: Any) -> Any:
            given = (*inputs, *named.values()) if takes_inputs else ()
            return replace_loss(
                criterion(*inputs, **named), lambda loss: _checked(patch, patch(loss, *given))
            )

        return with_patch

    return patched._rebind_add(wrap, f"loss patch {name_of(patch)}")


def patch_criterion(patched: PatchedCriterion, wrap: Callable[[Criterion], Criterion]) -> Handle:
    """Replace the criterion by `wrap(criterion)`."""
    if not callable(wrap):
        raise TrainingError(f"patch_criterion takes a function of the criterion, not {wrap!r}")
    return patched._rebind_add(wrap, f"criterion patch {name_of(wrap)}")


def replace_loss(output: Any, replace: Callable[[torch.Tensor], Any]) -> Any:
    """Replace the loss in what a criterion or training step returned, and keep everything else as it is.

    Args:
        output: The loss; a tuple or list with the loss first; a named tuple, mapping, dataclass or other
            object with `loss`.
        replace: From the loss to the new one.

    Returns:
        A value of the same type.

    Raises:
        TrainingError: There is no loss to be found.
    """
    if isinstance(output, torch.Tensor):
        return replace(output)
    if is_namedtuple(output):
        name = "loss" if "loss" in output._fields else output._fields[0]
        return output._replace(**{name: replace(_tensor(getattr(output, name), output))})
    if isinstance(output, tuple | list) and output:
        return type(output)([replace(_tensor(output[0], output)), *output[1:]])
    if isinstance(output, Mapping) and "loss" in output:
        return _with_entry(output, replace(_tensor(output["loss"], output)))
    if hasattr(output, "loss"):
        return _with_attribute(output, replace(_tensor(output.loss, output)))
    raise TrainingError(_unreachable(output))


def _with_entry(output: Mapping[str, Any], loss: Any) -> Any:
    copied = copy.copy(output)
    if isinstance(copied, MutableMapping):
        copied["loss"] = loss
        return copied
    return type(output)({**output, "loss": loss})  # type: ignore[call-arg]  # as mappings are made


def _with_attribute(output: Any, loss: Any) -> Any:
    copied = copy.copy(output)
    object.__setattr__(copied, "loss", loss)  # a frozen dataclass as well
    return copied


def _tensor(loss: Any, output: Any) -> torch.Tensor:
    if not isinstance(loss, torch.Tensor):
        raise TrainingError(_unreachable(output))
    return loss


def _unreachable(output: Any) -> str:
    return (
        f"the loss patch cannot reach the loss in a {type(output).__name__}: return a tensor, a tuple with the loss "
        "first, or a mapping, named tuple or dataclass with 'loss'"
    )


def _checked(patch: Patch, loss: Any) -> Any:
    if not isinstance(loss, torch.Tensor):
        raise TrainingError(
            f"loss patch {name_of(patch)} returned {type(loss).__name__}; it must return the new loss"
        )
    return loss


def _takes_more_than_one(patch: Patch) -> bool:
    signature = signature_of(patch)
    if signature is None:
        return True
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Parameter.VAR_POSITIONAL in kinds or sum(kind in positional for kind in kinds) > 1
