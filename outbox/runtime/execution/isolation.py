"""Keeps a job that may have killed its process away from others of that kind.

A process that dies takes all its jobs with it, and each of them has one attempt less. Their rows do not tell which of
them was the cause. After two such deaths the next one may be the last for all of them. From then on each runs beside no
other of its kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from outbox import clock
from outbox.drivers.values import Claim
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import Settlement

_SHORTEST, _LONGEST = 0.1, 30.0
"""Seconds for which the first deferred job stays away: as long as the one that runs has run already."""

_APART = 0.025
"""Seconds by which the deferred jobs of one claim come back one after another. Together, they would all be claimed and
put back each time that one of them can run."""

_LOOK_AGAIN = 0.02
"""Seconds between two looks at whether the deferred ones have left."""


def is_suspect(claim: Claim) -> bool:
    """Whether this attempt is the third or a later one, and the last one died with its process. One lost process makes
    no job a suspect."""
    return claim.rescued and claim.attempt > 2


def hand_back(claim: Claim, delay: float = 0.0) -> Settlement:
    """Put a job back as if this attempt had never been. A suspect stays one."""
    put_back = Settlement.deferred if is_suspect(claim) else Settlement.snoozed
    return put_back(claim.fence, delay)


class Isolation:
    """At most one suspect of a process runs at a time. All consumers of a worker share one."""

    def __init__(self) -> None:
        self._alone: Attempt | None = None
        self._since = 0.0

    def admit(self, attempts: Sequence[Attempt]) -> tuple[list[Attempt], Attempt | None, list[Attempt]]:
        """Sort claimed jobs into those that run as usual, the suspect that may run once the others have left, and
        suspects to be deferred."""
        usual: list[Attempt] = []
        deferred: list[Attempt] = []
        chosen: Attempt | None = None
        for attempt in attempts:
            if not is_suspect(attempt.claim):
                usual.append(attempt)
            elif self._alone is None:
                self._alone = chosen = attempt
                self._since = clock.now()
            else:
                deferred.append(attempt)
        return usual, chosen, deferred

    def delays(self, count: int) -> list[float]:
        """Seconds until each of so many deferred jobs may be claimed again."""
        first = max(_SHORTEST, clock.now() - self._since)
        return [min(_LONGEST, first + number * _APART) for number in range(count)]

    def leave(self, attempt: Attempt) -> None:
        """This one has ended, and so has its handler."""
        if self._alone is attempt:
            self._alone = None

    async def wait(self, attempt: Attempt, deferred: Sequence[Attempt], held: Callable[[Attempt], bool]) -> None:
        """Return once the ``deferred`` are in the store, so that they lose no attempt, or ``attempt`` is told to stop.
        A store that does not answer is waited for."""
        while attempt.interruption is None and any(map(held, deferred)):  # noqa: ASYNC110 - rare, and short
            await asyncio.sleep(_LOOK_AGAIN)
