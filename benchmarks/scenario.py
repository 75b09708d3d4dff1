"""The shape of everything that is measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.results import Point
from benchmarks.sizes import Sizes
from benchmarks.stores import KINDS, Store


@dataclass(frozen=True, slots=True)
class Site:
    """Where a measurement is made: an empty store, and an empty directory for the files of its processes."""

    store: Store
    sizes: Sizes
    directory: Path


@dataclass(frozen=True, slots=True)
class Sample:
    """What one measurement gave: figures by their names, which say the unit; and the points of a curve."""

    figures: Mapping[str, float]
    series: Sequence[Point] = ()


Measure = Callable[[Site], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the things that a scenario puts side by side."""

    name: str
    measure: Measure
    against: str | None = None
    """The variant that it is compared with, cycle by cycle."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A question, and the variants whose figures answer it. They are measured in turns, so that whatever else the
    machine and its disk are doing hits all of them; compare them with each other, not with another run."""

    name: str
    title: str
    variants: Callable[[Store, Sizes], Sequence[Variant]]
    compared: str | None = None
    """The figure of which ratios are made."""
    stores: Sequence[str] = field(default=KINDS)
    once: bool = False
    """Not repeated: it takes long, and what it shows is in its own course."""
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot be measured on this machine, where it needs something beside the store; None where it can."""
    axis: str | None = None
    """What the level of a point counts."""
    by_part: bool = False
    """Its figures are called ``PART, FIGURE``: in tables, each part has a row."""
