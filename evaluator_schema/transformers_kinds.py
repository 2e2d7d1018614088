"""Telling the classes of transformers by their names, without importing transformers."""

from __future__ import annotations

from typing import Any

from .library_kinds import home_of

# What a Trainer is made of, and may be constructed on the word of an import path.
PARTS = (
    "Trainer",
    "TrainingArguments",
    "TrainerCallback",
    "DataCollatorMixin",
    "DataCollatorWithPadding",
    "DataCollatorForSeq2Seq",
)


def is_of_transformers(kind: Any, *bases: str) -> bool:
    """Tell whether a class is one of these classes of transformers, or derives from one."""
    return home_of(kind, bases, ("transformers",)) is not None
