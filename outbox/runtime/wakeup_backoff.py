"""How quickly a worker responds to a wake-up that reaches many workers."""

from __future__ import annotations

import random

_FIRST, _LONGEST = 0.005, 10.0


class WakeupBackoff:
    """Delays workers that recently found nothing, because a wake-up reaches every idle worker and one gets the job.

    A worker that got a job responds to the next wake-up at once. The others wait for a random time before they probe.
    Its limit doubles each time that another worker was quicker. So as many workers respond at once as there is work
    for, and the others cost little more than polling. If the quick ones are busy or gone, one of the others responds
    within some ten milliseconds.
    """

    def __init__(self) -> None:
        self._limit = _LONGEST

    def succeeded(self) -> None:
        """The worker found a job."""
        self._limit = 0.0

    def failed(self) -> None:
        """The worker was woken, and another one got the job."""
        self._limit = min(max(_FIRST, 2 * self._limit), _LONGEST)

    def delay(self, at_most: float) -> float:
        """Seconds to wait before the next probe, at random."""
        limit = min(self._limit, at_most)
        return random.uniform(0.0, limit) if limit > 0 else 0.0  # noqa: S311 - spreads load, guards nothing
