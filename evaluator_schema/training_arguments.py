"""From a `TrainingArguments` of transformers that was not traced to the call that gives an equal one."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from .comparison import same
from .tracing.recording import Record, Snapshot


def record_of_arguments(value: Any) -> Record | None:
    """Give the record that a traced construction of some `TrainingArguments` would have left.

    It holds what differs from the class's defaults, and is only given if constructing it again gives equal
    arguments. Such a record is read by people, written as JSON, and finds its device anew on each machine.

    Args:
        value: The arguments. They are not changed.

    Returns:
        The record; None where no call gives these arguments, so that they have to travel as they are.
    """
    kind = type(value)
    if not is_dataclass(value) or not all(item.init for item in fields(value)):
        return None
    changed = [item for item in fields(value) if not same(getattr(value, item.name), _default_of(item))]
    told = {item.name: getattr(value, item.name) for item in changed if item.name not in _DERIVED}
    try:
        differing = _differing(value, kind(**told))
        told.update({name: getattr(value, name) for name in differing if name in _DERIVED})
        if differing and _differing(value, kind(**told)):
            return None
    except Exception:  # noqa: BLE001 - a class of the user's may ask for anything
        return None
    snapshot = Snapshot()
    return Record(kind, (), {key: snapshot.take(held) for key, held in told.items()}, _EARLIER, "", 0, [])


def _differing(first: Any, second: Any) -> list[str]:
    """List the fields in which two values of one dataclass differ."""
    names = [item.name for item in fields(first)]
    return [name for name in names if not same(getattr(first, name), getattr(second, name))]


# What transformers computes from other fields, the environment or the machine, unless it is given: only the
# comparison tells whether it was.
_DERIVED = frozenset(
    {
        "accelerator_config",
        "activation_checkpointing",
        "dataloader_pin_memory",
        "debug",
        "disable_tqdm",
        "gradient_checkpointing",
        "greater_is_better",
        "report_to",
    }
)
# Before every traced call: the Trainer takes it.
_EARLIER = -1


def _default_of(item: Field[Any]) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return item.default
