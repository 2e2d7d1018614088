"""The record of a run: what was measured and what was promised, as a value that goes to JSON and back."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict

Unit = Literal["seconds", "bytes"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ratio(_Value):
    """How many times as much as another, over the rounds that both were measured in."""

    median: float
    least: float
    most: float
    lower_quartile: float
    upper_quartile: float


class Comparison(_Value):
    """What each contestant took, round by round.

    Attributes:
        family: What is compared. Comparisons of one family share a table and a plot.
        setting: In which of the family's settings, such as a size.
        size: That setting as a number, if it is one: the plot then has a line for each contestant.
        baseline: The contestant that the others are divided by.
        unit: What the samples are.
        samples: By contestant; those of the same index were taken in the same round.
    """

    family: str
    setting: str = ""
    size: float | None = None
    baseline: str
    unit: Unit = "seconds"
    samples: dict[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Give the median of a contestant's samples."""
        return statistics.median(self.samples[name])

    def ratio(self, name: str, to: str | None = None) -> Ratio | None:
        """Give the ratio to another contestant, or to the baseline; None if one was not measured."""
        own, other = self.samples.get(name), self.samples.get(to or self.baseline)
        if not own or not other or not all(other):
            return None
        ratios = [mine / theirs for mine, theirs in zip(own, other, strict=False)]
        quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return Ratio(
            median=statistics.median(ratios),
            least=min(ratios),
            most=max(ratios),
            lower_quartile=quartiles[0],
            upper_quartile=quartiles[2],
        )


class Place(_Value):
    """Whose figure in a report: a contestant in a setting of a family."""

    family: str
    contestant: str
    setting: str = ""


class Promise(_Value):
    """What is promised of a figure: the figure, or its ratio to another, is at most the limit.

    Attributes:
        says: The promise in words, with its limit.
        of: Whose figure.
        to: What it is divided by; nothing, if the figure itself is promised.
        limit: Times, or seconds, or bytes.
    """

    says: str
    of: Place
    to: Place | None = None
    limit: float


class Report(_Value):
    """What one benchmark measured."""

    name: str
    title: str
    about: str
    comparisons: tuple[Comparison, ...]
    promises: tuple[Promise, ...]
    left_out: tuple[str, ...]
    seconds: float

    def families(self) -> Iterator[tuple[str, list[Comparison]]]:
        """Give each family with its comparisons, in the order of measurement."""
        for family in dict.fromkeys(each.family for each in self.comparisons):
            yield family, [each for each in self.comparisons if each.family == family]

    def kept(self, promise: Promise) -> tuple[float, bool] | None:
        """Give the figure of a promise and whether it holds; None if the run did not measure it."""
        figure = self._figure(promise.of, promise.to)
        return None if figure is None else (figure, figure <= promise.limit)

    def unit(self, promise: Promise) -> Unit | None:
        """Give what a promise's figure is counted in; None if it is a ratio."""
        comparison = self._at(promise.of)
        return comparison.unit if comparison is not None and promise.to is None else None

    def _figure(self, of: Place, to: Place | None) -> float | None:
        own, other = self._at(of), self._at(to or of)
        if own is None or other is None:
            return None
        if to is None:
            return own.median(of.contestant)
        if own is other:  # taken in the same rounds: each round has its ratio
            ratio = own.ratio(of.contestant, to.contestant)
            return None if ratio is None else ratio.median
        return own.median(of.contestant) / other.median(to.contestant)

    def _at(self, place: Place) -> Comparison | None:
        for each in self.comparisons:
            if (each.family, each.setting) == (place.family, place.setting):
                return each if each.samples.get(place.contestant) else None
        return None


class Machine(_Value):
    """What the run was made with.

    Attributes:
        processor: Its model's name.
        cores: How many this process may use.
        memory: In bytes.
        load: The mean number of programs that wanted a core in the minute before the run.
        system: Kernel's name.
        python: Version.
        libraries: Versions by distribution; those that are not installed are missing.
    """

    processor: str
    cores: int
    memory: int
    load: float
    system: str
    python: str
    libraries: dict[str, str]


class Record(_Value):
    """A whole run."""

    machine: Machine
    quick: bool
    reports: tuple[Report, ...]
