"""Charts: an SVG and a table that every browser shows, and the numbers that a script draws from where it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from markupsafe import Markup

from outbox.drivers.metrics import MINUTE, MetricPoint, merged
from outbox.web.rendering import seconds
from outbox.web.trends import DAY, DAY_STEP, HOUR, Trend

_WIDTH, _HEIGHT = 600, 120
_SPARK_WIDTH, _SPARK_HEIGHT, _SPARKS = 96, 20, 48
NOTHING = "\N{EN DASH}"

Values = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """``colour`` is a class of the style sheet. A value is None where there was nothing to measure."""

    name: str
    colour: str
    values: Values


@dataclass(frozen=True)
class Chart:
    """``times`` are seconds since 1970, at which each value begins. ``unit`` is ``"jobs"`` or ``"seconds"``."""

    title: str
    unit: str
    times: tuple[int, ...]
    lines: tuple[Line, ...]

    @cached_property
    def top(self) -> float:
        """The greatest value, at least one job or a millisecond."""
        smallest = 1.0 if self.unit == "jobs" else 0.001
        return max([smallest, *(value for line in self.lines for value in line.values if value is not None)])

    @property
    def is_empty(self) -> bool:
        return not any(value for line in self.lines for value in line.values)

    def shown(self, value: float | None) -> str:
        if value is None:
            return NOTHING
        return f"{value:,.0f}" if self.unit == "jobs" else seconds(value)

    @cached_property
    def rows(self) -> list[tuple[datetime, list[str]]]:
        """For the table: times at which something was measured."""
        return [
            (datetime.fromtimestamp(at, UTC), [self.shown(line.values[number]) for line in self.lines])
            for number, at in enumerate(self.times)
            if any(line.values[number] for line in self.lines)
        ]

    @cached_property
    def data(self) -> str:
        """For the script."""
        lines = [{"name": each.name, "colour": each.colour, "values": each.values} for each in self.lines]
        return json.dumps({"unit": self.unit, "times": self.times, "lines": lines}, separators=(",", ":"))

    @cached_property
    def svg(self) -> Markup:
        drawn = Markup().join(_drawn(line, self.top, _WIDTH, _HEIGHT) for line in self.lines)
        label = f"{self.title}: at most {self.shown(self.top)}"
        return Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>').format(
            _WIDTH, _HEIGHT, label, drawn
        )


def _drawn(line: Line, top: float, width: int, height: int) -> Markup:
    """One polyline for each stretch without a gap."""
    step = width / max(1, len(line.values) - 1)
    stretches: list[list[str]] = [[]]
    for number, value in enumerate(line.values):
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{number * step:.1f},{height - 1 - value / top * (height - 2):.1f}")
    drawn = [points if len(points) > 1 else [*points, *points] for points in stretches if points]
    polyline = Markup('<polyline class="line {}" fill="none" vector-effect="non-scaling-stroke" points="{}"/>')
    return Markup().join(polyline.format(line.colour, " ".join(points)) for points in drawn)


Measure = Callable[[MetricPoint], float | None]


def _counted(outcome: str) -> Measure:
    return lambda point: float(point.settled.get(outcome, 0))


def _lines(
    points: Sequence[MetricPoint], now: datetime, span: int, step: int, wanted: Sequence[tuple[str, str, Measure]]
) -> tuple[tuple[int, ...], tuple[Line, ...]]:
    last = int(now.timestamp()) // step * step
    times = tuple(range(last - span + step, last + step, step))
    found = {int(each.at.timestamp()): each for each in merged(points, step, by_queue=False, by_name=False)}
    lines = tuple(
        Line(name, colour, tuple(measure(found[at]) if at in found else _nothing(measure) for at in times))
        for name, colour, measure in wanted
    )
    return times, lines


def _nothing(measure: Measure) -> float | None:
    return 0.0 if measure not in _PERCENTILES else None


_THROUGHPUT = (
    ("completed", "running", _counted("completed")),
    ("retried", "warn", _counted("retried")),
    ("failed", "failed", _counted("failed")),
)
_DURATIONS: tuple[tuple[str, str, Measure], ...] = (
    ("run p50", "running", lambda point: point.run.percentile(0.5)),
    ("run p95", "warn", lambda point: point.run.percentile(0.95)),
    ("wait p50", "ready", lambda point: point.wait.percentile(0.5)),
    ("wait p95", "delayed", lambda point: point.wait.percentile(0.95)),
)
_PERCENTILES = {measure for _, _, measure in _DURATIONS}


def throughput(trend: Trend) -> tuple[Chart, ...]:
    """What became of attempts, a minute in the last hour and in each ten minutes of the last day."""
    return trend.once("throughput", lambda: _throughput(trend)) if trend.is_kept else ()


def _throughput(trend: Trend) -> tuple[Chart, ...]:
    hour = _lines(trend.hour, trend.now, HOUR, MINUTE, _THROUGHPUT)
    day = _lines(trend.day, trend.now, DAY, DAY_STEP, _THROUGHPUT)
    return Chart("Attempts a minute, last hour", "jobs", *hour), Chart("Attempts in 10 minutes, last day", "jobs", *day)


def durations(trend: Trend) -> tuple[Chart, ...]:
    """How long handlers took, and how long jobs waited for them."""
    return trend.once("durations", lambda: _durations(trend)) if trend.is_kept else ()


def _durations(trend: Trend) -> tuple[Chart, ...]:
    hour = _lines(trend.hour, trend.now, HOUR, MINUTE, _DURATIONS)
    day = _lines(trend.day, trend.now, DAY, DAY_STEP, _DURATIONS)
    return Chart("Run and wait, last hour", "seconds", *hour), Chart("Run and wait, last day", "seconds", *day)


def sparkline(trend: Trend) -> Markup:
    """Attempts of the last day in a row of a table, and those that failed."""
    return trend.once("sparkline", lambda: _sparkline(trend))


def _sparkline(trend: Trend) -> Markup:
    wanted = (
        ("completed", "running", _counted("completed")),
        ("failed", "failed", lambda point: float(point.settled.get("failed", 0) + point.settled.get("retried", 0))),
    )
    _, lines = _lines(trend.day, trend.now, DAY, DAY // _SPARKS, wanted)
    completed, failed = (int(sum(value or 0 for value in line.values)) for line in lines)
    if not completed + failed:
        return Markup('<span class="calm">{}</span>').format(NOTHING)
    top = max(value or 0 for line in lines for value in line.values) or 1
    drawn = Markup().join(_drawn(line, top, _SPARK_WIDTH, _SPARK_HEIGHT) for line in lines)
    label = f"last day: {completed:,} completed, {failed:,} attempts failed"
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">'
        "<title>{}</title>{}</svg>"
    ).format(_SPARK_WIDTH, _SPARK_HEIGHT, _SPARK_WIDTH, _SPARK_HEIGHT, label, label, drawn)
