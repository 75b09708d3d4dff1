"""What a run has found, as values and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Self

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure of several cycles."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Point:
    """Of a curve: the figures at a level of load."""

    level: float
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One variant of one scenario on one store. A figure has a value for each cycle."""

    scenario: str
    title: str
    store: str
    variant: str
    against: str | None
    compared: str | None
    axis: str | None
    figures: Mapping[str, Sequence[float]]
    series: Sequence[Point]
    by_part: bool = False
    """As `Scenario.by_part`."""

    def parts(self) -> Iterator[Self]:
        """One of each part, which is its variant; the measurement itself where it has none."""
        if not self.by_part:
            yield self
            return
        found: dict[str, dict[str, Sequence[float]]] = {}
        for name, values in self.figures.items():
            part, _, figure = name.rpartition(", ")
            found.setdefault(part, {})[figure] = values
        for part, figures in found.items():
            yield replace(self, variant=part, figures=figures, by_part=False)

    def spread(self, figure: str) -> Spread:
        return Spread.of(self.figures[figure])

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{**values, "series": [Point(**point) for point in values["series"]]})


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that one command has measured."""

    started_at: str
    minutes: float
    quick: bool
    repeat: int
    facts: Mapping[str, Mapping[str, str]]
    """The machine, the versions, and the settings of each store, in sections."""
    measurements: Sequence[Measurement]
    failures: Sequence[str]

    def of(self, scenario: str, store: str | None = None) -> Iterator[Measurement]:
        for measurement in self.measurements:
            if measurement.scenario == scenario and store in (None, measurement.store):
                yield measurement

    def ratio(self, measurement: Measurement) -> Spread | None:
        """To the variant that it is compared with, made cycle by cycle; None where it is compared with none."""
        if measurement.against is None or measurement.compared is None:
            return None
        for other in self.of(measurement.scenario, measurement.store):
            if other.variant == measurement.against:
                pairs = zip(
                    measurement.figures[measurement.compared], other.figures[measurement.compared], strict=False
                )
                ratios = [mine / theirs for mine, theirs in pairs if theirs]
                return Spread.of(ratios) if ratios else None
        return None

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """:raises SystemExit: it is not a file of results that this version reads."""
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format", None) != FORMAT:
            raise SystemExit(f"{path} is not a file of results, or one of another version")
        return cls(**{**values, "measurements": [Measurement.load(each) for each in values["measurements"]]})
