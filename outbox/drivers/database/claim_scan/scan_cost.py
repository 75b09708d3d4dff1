"""Whether claims can begin at the head of the index, and how often to look there when they cannot. No I/O.

A transaction that stays open anywhere on the server keeps deleted index entries alive, and whoever reads from the head
walks over them. Nothing that the server counts shows it, but time does: so time is what is compared and spent.
"""

from __future__ import annotations

from collections.abc import Callable

from outbox import clock

SHARE = 0.05
"""Of the time that passes, what all workers of a fleet together spend on looks that are dear."""

LONGEST_REST = 10.0
"""Seconds between two looks of a fleet at most, whatever they cost."""

_LONGEST_REST_OF_ONE = 60.0
"""Seconds between two looks of one worker at most, however many others there are: some may be gone."""

_CLAIMS, _JOBS = 16, 1_000
"""Both must have gone by before a claim from the head is compared with one from the marks again."""

_TOLERATED = 0.1
"""How much longer than from the marks a claim from the head may take, as a part of the whole claim."""

_SUSPICIOUS = 3.0
"""A SELECT that takes so many times as long as the UPDATE of what it found may have walked over something."""

_SHORT_WALK = 5.0
"""A look that takes at most so many times as long as a statement that reads next to nothing has not walked far: then
one claim from the head is worth trying."""

LONG_LOOK, _LONG_LOOKS = 0.02, 2
"""Seconds that no look takes which does not walk far, unless the network is slow; and how many of them are a proof."""

_COMPARABLE = 0.8
"""A claim from the marks tells something of one from the head if it took at least this part of its jobs."""

Clock = Callable[[], float]


class Cooldown:
    """Keeps what is dear to a share of the time: after it, a pause in proportion to what it cost. The lesser of its
    last two costs counts, so that a single hiccup leads to no long pause."""

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

    def begin(self, spent: float, sharers: int = 1) -> None:
        """After ``spent`` seconds, which each of so many ``sharers`` spends as often."""
        charged, self._spent = max(0.0, min(spent, self._spent)), spent
        longest = min(LONGEST_REST * sharers, _LONGEST_REST_OF_ONE)
        self._end = self._now() + min(charged * sharers / SHARE, longest)


class ScanCost:
    """Compares claims from the head with claims from the marks.

    From the head they are made as long as nothing speaks against it. Now and then one is made the other way, which
    finds the same jobs: it looks first where each lane begins. If that is quicker by more than a tolerated part of the
    claim, claims stay with the marks until one from the head, tried when looks have become cheap, is as quick again.
    One hiccup costs one such look, and nothing becomes later by it.
    """

    def __init__(self, now: Clock = clock.now) -> None:
        self.expensive = False
        """Whether claims from the head cost more than they may."""
        self._claims = 0
        self._jobs = 0
        self._suspicious = False
        self._head: tuple[int, float, float] | None = None
        self._marked: tuple[int, float] | None = None
        self._cheap_look = False
        self._long_looks = 0
        self._trial = Cooldown(now)
        self._sharers = 1

    @property
    def at_head(self) -> bool:
        """Whether the next claim is to begin there."""
        if self.expensive:
            return self._cheap_look and self._trial.over
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
            self._cheap_look = False
            self.expensive = self._is_expensive()
            if self.expensive and self._marked:
                self._trial.begin(select - self._marked[1], self._sharers)

    def went_on(self, jobs: int) -> None:
        """A claim of a backlog began where the last one had ended, and took ``jobs``. It tells nothing of the head, but
        what it took is deleted and may be in the way there."""
        self._claims += 1
        self._jobs += jobs

    def from_marks(self, jobs: int, select: float) -> None:
        """The same of a claim from the marks, without its looks."""
        self._claims, self._jobs, self._suspicious = 0, 0, False
        if jobs:
            self._marked = (jobs, select)
            self.expensive = self.expensive or self._is_expensive()

    def looked(self, seconds: float, trifle: float, sharers: int = 1) -> None:
        """A look where the lanes begin took so long, and a statement that reads next to nothing a ``trifle``. So many
        ``sharers`` look as well."""
        self._sharers = sharers
        self._cheap_look = seconds <= _SHORT_WALK * trifle
        self._long_looks = self._long_looks + 1 if seconds > max(LONG_LOOK, 2 * _SHORT_WALK * trifle) else 0
        # A worker that finds nothing to claim has only its looks to tell.
        self.expensive |= self._long_looks >= _LONG_LOOKS

    def _is_expensive(self) -> bool:
        if self._head is None or self._marked is None:
            return False
        jobs, select, whole = self._head
        marked_jobs, marked = self._marked
        if marked_jobs < _COMPARABLE * jobs:
            return self.expensive
        return select - marked > _TOLERATED * (whole - select + marked)
