"""`Handle`: what a patch or a hook gives back, to take it away again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self


class Revertible(ABC):
    """What is taken away by `revert`, or when its `with` block is left."""

    @abstractmethod
    def revert(self) -> None:
        """Take it away; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.revert()


class Handle(Revertible):
    """Takes one thing away again: alone, once, and in any order with others.

    It is a context manager, too: what it stands for is gone when the block is left.

    Args:
        undo: Takes it away.
        what: What it is, for people.
    """

    def __init__(self, undo: Callable[[], object], what: str) -> None:
        self._undo: Callable[[], object] | None = undo
        self._what = what

    @property
    def active(self) -> bool:
        """Whether it is still there."""
        return self._undo is not None

    def revert(self) -> None:
        """Take it away; a second call does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()

    def __repr__(self) -> str:
        return f"<Handle of {self._what}{'' if self.active else ' (reverted)'}>"
