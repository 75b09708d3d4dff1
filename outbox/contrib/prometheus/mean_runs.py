"""How long attempts of each queue have run lately."""

from __future__ import annotations

import math

from outbox import clock

_MEMORY = 300.0
"""Seconds after which an attempt weighs about a third of what it weighed at its end."""


class MeanRuns:
    """A mean for each queue in which older attempts weigh less."""

    def __init__(self) -> None:
        self._queues: dict[str, tuple[float, float, float]] = {}
        """By queue: when it was counted last, the weight of all attempts, the sum of their weighted seconds."""

    def add(self, queue: str, seconds: float) -> None:
        now = clock.now()
        at, weight, total = self._queues.get(queue, (now, 0.0, 0.0))
        kept = math.exp((at - now) / _MEMORY)
        self._queues[queue] = (now, weight * kept + 1.0, total * kept + seconds)

    def of(self, queue: str) -> float | None:
        """Seconds; None where no attempt has ended."""
        found = self._queues.get(queue)
        return None if found is None else found[2] / found[1]
