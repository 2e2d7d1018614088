"""Collecting every problem of a value, so that one `ValidationError` tells them all."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from .signatures import Location


class Problems:
    """What is wrong with a value, each problem with its path and what was found there."""

    def __init__(self) -> None:
        self._details: list[InitErrorDetails] = []

    def add(self, location: Location, message: str, found: Any = None, kind: str = "spec") -> None:
        """Note one problem."""
        # Braces in a message are pydantic's own placeholders.
        error = PydanticCustomError(kind, "{message}", {"message": message})
        self._details.append(InitErrorDetails(type=error, loc=location, input=found))

    def include(self, location: Location, error: ValidationError) -> None:
        """Note all problems of another validation under `location`, but for fields with problems already."""
        known = {detail["loc"] for detail in self._details if "loc" in detail}
        for line in error.errors(include_url=False):
            if (*location, *line["loc"][:1]) in known:
                continue
            self.add((*location, *line["loc"]), line["msg"], line.get("input"), line["type"])

    def __bool__(self) -> bool:
        return bool(self._details)

    def raise_if_any(self, title: str) -> None:
        """Raise one `ValidationError` with everything noted.

        Raises:
            ValidationError: Something was noted.
        """
        if self._details:
            raise ValidationError.from_exception_data(title, self._details)


class Invalid:
    """A stand-in for a value whose capture failed; validating it raises what was noted."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
