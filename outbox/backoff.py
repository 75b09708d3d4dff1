"""How long a job waits between two attempts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from outbox.errors import InvalidOption

MAX_DELAY = 10 * 365 * 86_400.0
"""The longest delay accepted anywhere, in seconds: ten years. More is a mistake in units."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after the first, second, … failed attempt; the last value repeats.

    ``jitter`` is the share of each delay that is random: with 0.1, a delay of 10 s becomes 9 to 11 s, so that jobs
    that failed together do not come back together.

    Raises:
        InvalidOption: a delay is no number, negative or over ten years, or the jitter is not within 0 and 1.
    """

    delays: tuple[float, ...]
    jitter: float = 0.0

    def __init__(self, delays: float | Sequence[float], *, jitter: float = 0.0) -> None:
        if isinstance(delays, str | bytes) or not isinstance(delays, int | float | Sequence):
            raise InvalidOption(f"backoff takes a number of seconds, a list of them or a Backoff, not {delays!r}")
        values = (delays,) if isinstance(delays, int | float) else tuple(delays)
        if not values:
            values = (0.0,)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_DELAY:
                raise InvalidOption(f"backoff takes seconds from 0 to {MAX_DELAY:.0f}, not {value!r}")
        if not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
            raise InvalidOption(f"the jitter of a backoff is a share from 0 to 1, not {jitter!r}")
        object.__setattr__(self, "delays", tuple(float(value) for value in values))
        object.__setattr__(self, "jitter", float(jitter))

    @classmethod
    def exponential(
        cls, base: float = 1.0, *, factor: float = 2.0, maximum: float = 3600.0, jitter: float = 0.1
    ) -> Backoff:
        """``base``, ``base * factor``, ``base * factor**2`` … seconds, up to ``maximum``, which then repeats."""
        if not (base > 0 and factor > 1 and maximum >= base):
            raise InvalidOption("an exponential backoff needs base > 0, factor > 1 and maximum >= base")
        delays = [base]
        while delays[-1] < maximum:
            delays.append(min(delays[-1] * factor, maximum))
        return cls(delays, jitter=jitter)

    def delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt`` (1 is the first) has failed."""
        seconds = self.delays[min(max(attempt, 1), len(self.delays)) - 1]
        if self.jitter:
            seconds *= 1 + self.jitter * random.uniform(-1, 1)  # noqa: S311 - spreads load, guards nothing
        return seconds
