"""Time spans as they are typed on the command line."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import click

_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_LONGEST = 10 * 365 * 86_400.0


def parse_span(text: str) -> float | None:
    """The seconds of ``90s``, ``30m``, ``2h``, ``3d`` or ``1w``; None for any other text."""
    span = _SPAN.fullmatch(text.strip())
    return None if span is None else float(span[1]) * _UNITS[span[2]]


class Since(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic from click 8.2 on
    """``90s``, ``30m``, ``2h``, ``3d``, ``1w``, or a date or time in ISO 8601, by default in UTC.

    The value is the number of seconds since then.
    """

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        seconds = parse_span(value)
        if seconds is None:
            seconds = self._seconds_since(value.strip())
        if seconds is None or not math.isfinite(seconds) or not 0 <= seconds <= _LONGEST:
            self.fail(f"{value!r} is not a time like 30m, 2h, 3d or 2026-01-31T12:00 within ten years", param, ctx)
        return seconds

    @staticmethod
    def _seconds_since(text: str) -> float | None:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        # Stores get a duration, which they subtract from the time of their clock.
        return (datetime.now(UTC) - moment).total_seconds()
