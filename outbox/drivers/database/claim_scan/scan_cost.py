"""Whether claims can begin at the head of the index, and how often to probe the head if they cannot. No I/O.

A transaction that stays open anywhere on the server keeps deleted index entries alive. A scan from the head reads them
all. No counter of the server shows it, but time does, so times are compared.
"""

from __future__ import annotations

from collections.abc import Callable

from outbox import clock

SHARE = 0.05
"""Share of wall-clock time that the whole fleet may spend on expensive probes."""

LONGEST_COOLDOWN = 10.0
"""The longest time between two probes of a fleet, in seconds, whatever they cost."""

_LONGEST_COOLDOWN_OF_ONE = 60.0
"""The longest time between two probes of one worker, in seconds, however many others there are: some may be gone."""

_CLAIMS, _JOBS = 16, 1_000
"""A claim from the head is compared with one from the cursors after so many claims and so many jobs."""

_TOLERATED = 0.1
"""How much longer a claim from the head may take than one from the cursors, as a share of the whole claim."""

_SUSPICIOUS = 3.0
"""A SELECT that takes so many times as long as the UPDATE of its rows may have read deleted entries."""

_CHEAP_PROBE = 5.0
"""A probe that takes at most so many times as long as a count of the workers is cheap: a claim from the head is then
worth a trial."""

LONG_PROBE, _LONG_PROBES = 0.02, 2
"""A probe of so many seconds has read many deleted entries, or the network is slow; so many of them are a proof."""

_COMPARABLE = 0.8
"""Two claims are compared if the one from the cursors took at least this share of the jobs of the other."""

Clock = Callable[[], float]


class Cooldown:
    """A pause after something expensive, in proportion to its cost. The lesser of the last two costs counts, so that a
    single hiccup leads to no long pause."""

    def __init__(self, now: Clock = clock.now) -> None:
        self._now = now
        self._end = float("-inf")
        self._spent = 0.0

    @property
    def over(self) -> bool:
        return self.left <= 0

    @property
    def left(self) -> float:
        return max(0.0, self._end - self._now())

    def end(self) -> None:
        self._end = float("-inf")

    def begin(self, spent: float, workers: int = 1) -> None:
        """After ``spent`` seconds, which each of the ``workers`` spends as often."""
        charged, self._spent = max(0.0, min(spent, self._spent)), spent
        longest = min(LONGEST_COOLDOWN * workers, _LONGEST_COOLDOWN_OF_ONE)
        self._end = self._now() + min(charged * workers / SHARE, longest)


class ScanCost:
    """Compares claims from the head with claims from the cursors.

    Claims begin at the head by default. Now and then one begins at the cursors, after a probe of all heads, and finds
    the same jobs. If it is quicker by more than the tolerated share, claims stay with the cursors. When probes are
    cheap again, a claim from the head is tried. A hiccup costs one probe, and no job starts later because of it.
    """

    def __init__(self, now: Clock = clock.now) -> None:
        self.expensive = False
        """Whether claims from the head cost more than they may."""
        self._claims = 0
        self._jobs = 0
        self._suspicious = False
        self._head: tuple[int, float, float] | None = None
        self._cursors: tuple[int, float] | None = None
        self._cheap_probe = False
        self._long_probes = 0
        self._trial = Cooldown(now)
        self._workers = 1

    @property
    def at_head(self) -> bool:
        """Whether the next claim is to begin there."""
        if self.expensive:
            return self._cheap_probe and self._trial.over
        return not (self._suspicious or (self._claims >= _CLAIMS and self._jobs >= _JOBS))

    @property
    def wants_comparison(self) -> bool:
        return self.expensive or not self.at_head

    def from_head(self, jobs: int, select: float, update: float, whole: float) -> None:
        """A claim from the head took ``jobs``; seconds of its SELECT, its UPDATE, and all of it."""
        self._claims += 1
        self._jobs += jobs
        self._suspicious = jobs > 0 and select > _SUSPICIOUS * update
        self._head = (jobs, select, whole)
        if self.expensive:
            self._cheap_probe = False
            self.expensive = self._is_expensive()
            if self.expensive and self._cursors:
                self._trial.begin(select - self._cursors[1], self._workers)

    def from_backlog(self, jobs: int) -> None:
        """A claim of a backlog continued where the last one had ended, and took ``jobs``. Their deleted entries may
        slow down the next claim from the head."""
        self._claims += 1
        self._jobs += jobs

    def from_cursors(self, jobs: int, select: float) -> None:
        """A claim from the cursors took ``jobs``; seconds of its SELECT, without its probes."""
        self._claims, self._jobs, self._suspicious = 0, 0, False
        if jobs:
            self._cursors = (jobs, select)
            self.expensive = self.expensive or self._is_expensive()

    def probed(self, seconds: float, counting: float, workers: int = 1) -> None:
        """A probe of the heads took ``seconds``, and a count of the workers ``counting`` seconds. ``workers`` is how
        many of them probe."""
        self._workers = workers
        self._cheap_probe = seconds <= _CHEAP_PROBE * counting
        self._long_probes = self._long_probes + 1 if seconds > max(LONG_PROBE, 2 * _CHEAP_PROBE * counting) else 0
        # A worker that finds nothing to claim has only its probes to learn from.
        self.expensive |= self._long_probes >= _LONG_PROBES

    def _is_expensive(self) -> bool:
        if self._head is None or self._cursors is None:
            return False
        jobs, head, whole = self._head
        jobs_from_cursors, cursors = self._cursors
        if jobs_from_cursors < _COMPARABLE * jobs:
            return self.expensive
        return head - cursors > _TOLERATED * (whole - head + cursors)
