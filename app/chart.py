"""A temperature chart as SVG: a band from each day's least to its greatest, and the mean as a line."""

from collections.abc import Callable, Iterable, Sequence
from html import escape

from app.models import SensorDay

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 52, 40
FONT = "font-family='system-ui, sans-serif' font-size='12' fill='#555'"


def draw(title: str, days: Sequence[SensorDay]) -> str:
    """The chart of `days`, in their order; a chart that says so if there are none."""
    readings = sum(day.readings for day in days)
    body = _plot(days) if days else [_text(WIDTH / 2, HEIGHT / 2, "no readings", "middle")]
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img'>",
            f"<title>{escape(title)}</title>",
            "<rect width='100%' height='100%' fill='#fff'/>",
            f"<text x='{LEFT}' y='30' font-family='system-ui, sans-serif' font-size='17'"
            f" fill='#222'>{escape(title)}: daily range and mean in °C, {readings:,} readings</text>",
            *body,
            "</svg>\n",
        ]
    )


def _plot(days: Sequence[SensorDay]) -> list[str]:
    low = int(min(day.minimum for day in days) // 5) * 5
    high = int(max(day.maximum for day in days) // 5 + 1) * 5
    step = (WIDTH - LEFT - RIGHT) / max(len(days) - 1, 1)

    def x(index: int) -> float:
        return LEFT + index * step

    def y(value: float) -> float:
        return TOP + (high - value) * (HEIGHT - TOP - BOTTOM) / (high - low)

    upper = [(x(i), y(day.maximum)) for i, day in enumerate(days)]
    lower = [(x(i), y(day.minimum)) for i, day in enumerate(days)]
    means = [(x(i), y(day.total / day.readings)) for i, day in enumerate(days)]
    return [
        *_degrees(range(low, high + 1, 5), y),
        *(_text(x(i), HEIGHT - 14, f"{day.day.day}", "middle") for i, day in enumerate(days) if i % 5 == 0),
        f"<polygon points='{_points([*upper, *reversed(lower)])}' fill='#f4c7a1'/>",
        f"<polyline points='{_points(means)}' fill='none' stroke='#b4410e' stroke-width='2'/>",
    ]


def _degrees(marks: Iterable[int], y: Callable[[float], float]) -> Iterable[str]:
    for mark in marks:
        yield f"<path d='M{LEFT} {y(mark):.1f}H{WIDTH - RIGHT}' stroke='#ddd'/>"
        yield _text(LEFT - 8, y(mark) + 4, f"{mark}°", "end")


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {FONT}>{escape(text)}</text>"
