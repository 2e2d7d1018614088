"""What is closed when its `with` block is left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Gives a class with `close` its `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held. Safe to call again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
