"""What a worker has done since it last said so, by queue and class of jobs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from outbox.drivers.metrics import Activity
from outbox.middleware.interruption import Interruption
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import Outcome

_COMPLETED = Outcome.COMPLETED
_PUT_BACK = (Outcome.SNOOZED, Outcome.DEFERRED)
_COUNTED_AT_ONCE = 1_000
_Ends = tuple[list[Outcome], list[float], list[float]]
"""How attempts ended; how long jobs had waited, and how long handlers took, in seconds."""


class Activities:
    """Noted on the event loop of the worker, taken by the thread of the stores. Few attempts end together, and to count
    them costs little more for a thousand of them. So what is noted is counted later."""

    def __init__(self, lease: float) -> None:
        """``lease`` is that of claims, in seconds."""
        self._lease = lease
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str], _Ends] = {}
        self._counted: dict[tuple[str, str], Activity] = {}

    def count(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts whose ends are in the store. One that has not run, or was given back unfinished, is none."""
        with self._lock:
            self._note(attempts)

    def _note(self, attempts: Sequence[Attempt]) -> None:
        lease = self._lease
        of_one: _Ends = ([], [], [])
        queue: str | None = None
        name: str | None = None
        for attempt in attempts:
            settlement, claim, started = attempt.settlement, attempt.claim, attempt.started
            if settlement is None:
                continue
            outcome = settlement.outcome
            if outcome is not _COMPLETED and outcome in _PUT_BACK and _was_handed_back(attempt):
                continue
            if claim.name != name or claim.queue != queue:
                queue, name = claim.queue, claim.name
                of_one = self._ends_of(queue, name)
            outcomes, waits, runs = of_one
            outcomes.append(outcome)
            if started is not None:
                runs.append(attempt.seconds)
                waited = claim.waited
                if waited is not None:
                    # The lease of a claim is counted from before it was sent.
                    waits.append(waited + started - claim.deadline + lease)

    def _ends_of(self, queue: str, name: str) -> _Ends:
        key = queue, name
        ends = self._noted.get(key)
        if ends is None:
            ends = self._noted[key] = ([], [], [])
        elif len(ends[0]) >= _COUNTED_AT_ONCE:
            self._count(key, ends)
        return ends

    def _count(self, key: tuple[str, str], ends: _Ends) -> None:
        self._counted.setdefault(key, Activity()).add(*ends)
        for noted in ends:
            noted.clear()

    def take(self) -> dict[tuple[str, str], Activity]:
        """What was counted since the last call."""
        with self._lock:
            for key, ends in self._noted.items():
                self._count(key, ends)
            self._noted.clear()
            taken, self._counted = self._counted, {}
        return taken

    def put_back(self, taken: dict[tuple[str, str], Activity]) -> None:
        """Count again what could not be written."""
        with self._lock:
            for key, activity in taken.items():
                self._counted.setdefault(key, Activity()).merge(activity)


def _was_handed_back(attempt: Attempt) -> bool:
    return attempt.started is None or attempt.interruption is Interruption.SHUTDOWN
