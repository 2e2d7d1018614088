"""Telling Lightning's classes by their names, without importing Lightning."""

from __future__ import annotations

from typing import Any, Literal

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
    for base in kind.__mro__ if isinstance(kind, type) else ():
        if base.__name__ in bases:
            for package in PACKAGES:
                if base.__module__ == package or base.__module__.startswith(f"{package}."):
                    return package
    return None
