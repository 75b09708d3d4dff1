"""How quickly a worker answers a wake-up that many others hear as well."""

from __future__ import annotations

import random

_FIRST, _LONGEST = 0.005, 10.0


class WakeupBackoff:
    """A wake-up reaches every idle worker, and one of them gets the job. Who got one answers the next wake-up at once.
    The others wait a moment before they look, at random and up to a limit that doubles each time that somebody else
    was quicker. So a few are eager, as many as there is work for, and the others cost little more than when they poll.
    When the eager ones are busy or gone, the first of the others is there within some ten milliseconds.
    """

    def __init__(self) -> None:
        self._limit = _LONGEST

    def rewarded(self) -> None:
        """It found a job."""
        self._limit = 0.0

    def disappointed(self) -> None:
        """It was woken, and somebody else had been quicker."""
        self._limit = min(max(_FIRST, 2 * self._limit), _LONGEST)

    def hesitation(self, at_most: float) -> float:
        """Seconds to wait before looking."""
        limit = min(self._limit, at_most)
        return random.uniform(0.0, limit) if limit > 0 else 0.0  # noqa: S311 - spreads load, guards nothing
