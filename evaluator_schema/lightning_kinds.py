"""Telling Lightning's classes by their names, without importing Lightning."""

from __future__ import annotations

from typing import Any, Literal, cast

from .library_kinds import home_of

Package = Literal["pytorch_lightning", "lightning.pytorch"]
PACKAGES: tuple[Package, ...] = ("pytorch_lightning", "lightning.pytorch")

# What a trainer and its data are made of.
PARTS = (
    "Trainer",
    "LightningDataModule",
    "Callback",
    "Logger",
    "Strategy",
    "Precision",
    "Profiler",
    "Accelerator",
)


def package_of(kind: Any, *bases: str) -> Package | None:
    """Tell which of Lightning's two packages a class comes from.

    Args:
        kind: A class; anything else comes from neither.
        bases: Names of classes of Lightning, one of which it must be, or derive from.
    """
    return cast("Package | None", home_of(kind, bases, PACKAGES))
