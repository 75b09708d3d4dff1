"""Measurements as rows of text, for the terminal and for documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.results import Measurement, Run, Spread


@dataclass(frozen=True, slots=True)
class Table:
    """The variants of one scenario on all stores."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(run: Run) -> Iterator[Table]:
    """One for each scenario."""
    for name in dict.fromkeys(measurement.scenario for measurement in run.measurements):
        measurements = [part for each in run.of(name) for part in each.parts()]
        figures = list(dict.fromkeys(figure for each in measurements for figure in each.figures))
        ratios = [run.ratio(each) for each in measurements]
        compared = any(ratio is not None for ratio in ratios)
        columns = ("store", "what", *figures, *(["ratio"] if compared else []))
        rows = [
            (each.store, each.variant, *_figures(each, figures), *([_ratio(ratio)] if compared else []))
            for each, ratio in zip(measurements, ratios, strict=True)
        ]
        yield Table(name, measurements[0].title, columns, tuple(rows))


def _figures(measurement: Measurement, figures: list[str]) -> list[str]:
    return [_spread(measurement.spread(figure)) if figure in measurement.figures else "" for figure in figures]


def _spread(spread: Spread) -> str:
    """The middle, and from the least to the most where there was more than one cycle."""
    middle = number(spread.middle)
    return middle if spread.least == spread.most else f"{middle} ({number(spread.least)} to {number(spread.most)})"


def _ratio(ratio: Spread | None) -> str:
    return "" if ratio is None else _spread(ratio)


def number(value: float) -> str:
    """Three digits that matter, and no more than the whole of large numbers."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
