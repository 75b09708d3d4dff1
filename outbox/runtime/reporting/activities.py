"""What a worker has done since it last said so, by queue and class of jobs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from outbox.drivers.metrics import Activity
from outbox.middleware.interruption import Interruption
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import Outcome

_COMPLETED = Outcome.COMPLETED
_PUT_BACK = (Outcome.SNOOZED, Outcome.DEFERRED)
_COUNTED_AT_ONCE = 1_000


class _Ends(NamedTuple):
    completed: list[float]
    """Seconds that handlers took, of attempts that have completed their jobs: most have."""
    others: list[tuple[Outcome, float | None]]
    """The other ends, each with the seconds that a handler took; None where it was not called."""
    waits: list[float]
    """Seconds for which jobs had waited."""


class Activities:
    """Noted on the event loop of the worker, taken by the thread of the stores. Few attempts end together, and to count
    them costs little more for a thousand of them. So what is noted is counted later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str], _Ends] = {}
        self._counted: dict[tuple[str, str], Activity] = {}

    def count(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts whose ends are in the store. One that has not run, or was given back unfinished, is none."""
        with self._lock:
            self._note(attempts)

    def _note(self, attempts: Sequence[Attempt]) -> None:
        completed, others, waits = _Ends([], [], [])
        queue: str | None = None
        name: str | None = None
        for attempt in attempts:
            settlement = attempt.settlement
            if settlement is None:
                continue
            claim = attempt.claim
            if claim.name != name or claim.queue != queue:
                queue, name = claim.queue, claim.name
                completed, others, waits = self._ends_of(queue, name)
            if settlement.outcome is _COMPLETED and attempt.started is not None:
                completed.append(attempt.seconds)
            elif settlement.outcome in _PUT_BACK and _was_handed_back(attempt):
                continue
            else:
                others.append((settlement.outcome, None if attempt.started is None else attempt.seconds))
            waited = attempt.seconds_waited
            if waited is not None:
                waits.append(waited)

    def _ends_of(self, queue: str, name: str) -> _Ends:
        key = queue, name
        ends = self._noted.get(key)
        if ends is None:
            ends = self._noted[key] = _Ends([], [], [])
        elif len(ends.completed) + len(ends.others) >= _COUNTED_AT_ONCE:
            self._count(key, ends)
        return ends

    def _count(self, key: tuple[str, str], ends: _Ends) -> None:
        outcomes = Counter(outcome for outcome, _ in ends.others)
        outcomes[_COMPLETED] += len(ends.completed)
        if outcomes.total():
            runs = ends.completed + [seconds for _, seconds in ends.others if seconds is not None]
            self._counted.setdefault(key, Activity()).add(outcomes, ends.waits, runs)
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
