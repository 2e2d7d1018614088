"""Which arguments a trainer changes, so that a record keeps copies of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .lightning_kinds import package_of
from .transformers_kinds import is_of_transformers


def changed_by(target: Callable[..., Any]) -> Callable[[Any], bool] | None:
    """Give what tells of an argument whether calling `target` may change it, or using the result later.

    Lightning's Trainer writes into whatever it is given. That of transformers writes into its arguments and
    its callbacks; its data sets, which may be large, are shared.

    Returns:
        A function of the argument; None where nothing is changed.
    """
    if package_of(target, "Trainer") is not None:
        return lambda _: True
    if is_of_transformers(target, "Trainer"):
        return is_changed_by_transformers
    return None


def is_changed_by_transformers(value: Any) -> bool:
    """Tell whether an argument is one that a Trainer of transformers changes."""
    return is_of_transformers(type(value), "TrainingArguments", "TrainerCallback")
