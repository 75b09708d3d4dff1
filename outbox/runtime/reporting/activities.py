"""What a worker has done since it last said so, by queue and class of jobs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from statistics import median_low

from outbox.drivers.metrics import Activity
from outbox.histogram import Histogram, bounds_of, bucket_of
from outbox.middleware.interruption import Interruption
from outbox.runtime.execution.attempt import Attempt
from outbox.settlement import UNCOUNTED, Outcome

_COMPLETED = Outcome.COMPLETED
_COUNTED_AT_ONCE = 1_000
"""Others: to count them costs little more for a thousand of them than for one."""


class _Sums:
    """Ends of attempts at jobs of one class in one queue.

    Most attempts complete their jobs, and wait and run about as long as those before: within the usual bucket of a
    histogram. They are only added up. The others are kept, and counted together.
    """

    __slots__ = ("bounds", "others", "run_bucket", "runs", "usual", "wait_bucket", "waits")

    def __init__(self) -> None:
        self.wait_bucket = self.run_bucket = 0
        self.bounds = (0.0, 0.0, 0.0, 0.0)
        """Seconds between which the waits and the runs of the usual ones lie. None is usual yet."""
        self.usual = 0
        self.waits = self.runs = 0.0
        """Seconds for which the usual ones waited and ran."""
        self.others: list[tuple[Outcome, float | None, float | None]] = []
        """Each with the seconds for which its job waited and ran; None where that is not known, or nothing ran."""

    @property
    def has_any(self) -> bool:
        return bool(self.usual or self.others)

    def add(self, usual: int, waits: float, runs: float) -> None:
        self.usual += usual
        self.waits += waits
        self.runs += runs

    def move_to(self, activity: Activity) -> None:
        """Count all of them there. Where the others are more, what most of them have been is usual from now on."""
        if self.usual:
            settled = Counter({_COMPLETED.value: self.usual})
            wait = Histogram({self.wait_bucket: self.usual}, self.waits)
            run = Histogram({self.run_bucket: self.usual}, self.runs)
            activity.merge(Activity(settled, wait, run))
        if self.others:
            waits = [waited for _, waited, _ in self.others if waited is not None]
            runs = [seconds for _, _, seconds in self.others if seconds is not None]
            activity.add(Counter(outcome for outcome, _, _ in self.others), waits, runs)
            if waits and runs and len(self.others) > self.usual:
                self.wait_bucket, self.run_bucket = bucket_of(median_low(waits)), bucket_of(median_low(runs))
                self.bounds = (*bounds_of(self.wait_bucket), *bounds_of(self.run_bucket))
        self.usual, self.waits, self.runs = 0, 0.0, 0.0
        self.others.clear()


class Activities:
    """Noted on the event loop of the worker, taken by the thread of the stores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str], _Sums] = {}
        self._counted: dict[tuple[str, str], Activity] = {}

    def count(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts whose ends are in the store. One that has not run, or was given back unfinished, is none."""
        with self._lock:
            self._note(attempts)

    def _note(self, attempts: Sequence[Attempt]) -> None:
        """Local variables, and few calls: this is done for each job."""
        sums = _Sums()
        queue: str | None = None
        name: str | None = None
        usual, waits, runs = 0, 0.0, 0.0
        shortest_wait = longest_wait = shortest_run = longest_run = 0.0
        for attempt in attempts:
            settlement = attempt.settlement
            if settlement is None:
                continue
            claim = attempt.claim
            if claim.name != name or claim.queue != queue:
                sums.add(usual, waits, runs)
                usual, waits, runs = 0, 0.0, 0.0
                queue, name = claim.queue, claim.name
                sums = self._sums_of(queue, name)
                shortest_wait, longest_wait, shortest_run, longest_run = sums.bounds
            waited, seconds = attempt.seconds_waited, attempt.seconds
            if (
                waited is not None
                and shortest_wait < waited <= longest_wait
                and shortest_run < seconds <= longest_run
                and settlement.outcome is _COMPLETED
            ):
                usual += 1
                waits += waited
                runs += seconds
            elif not (settlement.outcome in UNCOUNTED and _was_handed_back(attempt)):
                sums.others.append((settlement.outcome, waited, None if attempt.started is None else seconds))
        sums.add(usual, waits, runs)

    def _sums_of(self, queue: str, name: str) -> _Sums:
        key = queue, name
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = _Sums()
        elif len(sums.others) >= _COUNTED_AT_ONCE:
            self._count(key, sums)
        return sums

    def _count(self, key: tuple[str, str], sums: _Sums) -> None:
        sums.move_to(self._counted.setdefault(key, Activity()))

    def take(self) -> dict[tuple[str, str], Activity]:
        """What was counted since the last call."""
        with self._lock:
            for key, sums in list(self._sums.items()):
                if sums.has_any:
                    self._count(key, sums)
                else:
                    del self._sums[key]
            taken, self._counted = self._counted, {}
        return taken

    def put_back(self, taken: dict[tuple[str, str], Activity]) -> None:
        """Count again what could not be written."""
        with self._lock:
            for key, activity in taken.items():
                self._counted.setdefault(key, Activity()).merge(activity)


def _was_handed_back(attempt: Attempt) -> bool:
    return attempt.started is None or attempt.interruption is Interruption.SHUTDOWN
