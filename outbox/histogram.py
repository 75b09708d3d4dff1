"""Durations counted in buckets that grow by the square root of two, from 1 ms to 24 h.

Every histogram has the same buckets, so that merging two loses nothing: percentiles hold across workers and time.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Self

SHORTEST, LONGEST = 0.001, 86_400.0
"""Seconds. What is shorter or longer is counted in the first or the last bucket."""

BUCKETS = math.ceil(2 * math.log2(LONGEST / SHORTEST)) + 2
BOUNDS = tuple(SHORTEST * 2 ** (number / 2) for number in range(BUCKETS - 1))
"""Seconds. Bucket ``n`` has what is longer than the bound before, up to the bound ``n`` itself; the last has no end."""

bucket_of: Callable[[float], int] = partial(bisect_left, BOUNDS)
"""The number of the bucket that counts a duration."""


def bounds_of(number: int) -> tuple[float, float]:
    """Seconds: what is longer than the first, up to the second, is counted in the bucket of this number."""
    return (0.0, *BOUNDS, math.inf)[number : number + 2]  # type: ignore[return-value]


class Histogram:
    """How often durations fell into each bucket, and their sum. Sparse: buckets without any are not kept."""

    __slots__ = ("buckets", "total")

    def __init__(self, buckets: Mapping[int, int] | None = None, total: float = 0.0) -> None:
        self.buckets = Counter(buckets or {})
        self.total = total
        """Seconds that all of them took together."""

    def add(self, seconds: float) -> None:
        """Count one duration; a negative one counts as 0."""
        self.add_all((seconds,))

    def add_all(self, durations: Sequence[float]) -> None:
        """As `add` for each of them. Durations of jobs that end together are alike: often one bucket gets all of
        them."""
        if not durations:
            return
        shortest = min(durations)
        bucket = bucket_of(shortest)
        if shortest >= 0 and bucket < len(BOUNDS) and max(durations) <= BOUNDS[bucket]:
            self.buckets[bucket] += len(durations)
            self.total += sum(durations)
            return
        # In their order, so that a bucket is looked for once for all that it gets.
        ordered = sorted(durations)
        begin = 0
        while begin < len(ordered):
            bucket = bucket_of(ordered[begin])
            end = bisect_right(ordered, BOUNDS[bucket], begin) if bucket < len(BOUNDS) else len(ordered)
            self.buckets[bucket] += end - begin
            begin = end
        self.total += sum(ordered[bisect_left(ordered, 0.0) :])

    def merge(self, other: Histogram) -> None:
        """Count what the other has counted."""
        self.buckets.update(other.buckets)
        self.total += other.total

    @classmethod
    def merged(cls, parts: Iterable[Histogram]) -> Self:
        whole = cls()
        for part in parts:
            whole.merge(part)
        return whole

    @property
    def count(self) -> int:
        return sum(self.buckets.values())

    @property
    def mean(self) -> float | None:
        """Seconds; None without any duration."""
        count = self.count
        return self.total / count if count else None

    def percentile(self, share: float) -> float | None:
        """Seconds within which that ``share``, from 0 to 1, of the durations lies: interpolated in a bucket, so that it
        is off by a factor of 1.42 at most. None without any duration.

        Raises:
            ValueError: the share is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share is between 0 and 1, not {share!r}")
        wanted, passed = share * self.count, 0
        for number in sorted(self.buckets):
            count = self.buckets[number]
            if passed + count >= wanted:
                low, high = bounds_of(number)
                high = low if high == math.inf else high
                return low + (high - low) * max(0.0, wanted - passed) / count
            passed += count
        return None

    def dump(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"buckets": {str(number): count for number, count in sorted(self.buckets.items())}, "total": self.total}

    @classmethod
    def load(cls, value: Any) -> Self:
        """What `dump` has made. What is not as it makes it is left out."""
        known = value if isinstance(value, dict) else {}
        buckets = known.get("buckets")
        total = known.get("total")
        return cls(
            {
                int(number): count
                for number, count in (buckets.items() if isinstance(buckets, dict) else ())
                if number.isdecimal() and int(number) < BUCKETS and type(count) is int and count > 0
            },
            float(total) if isinstance(total, int | float) else 0.0,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and (self.buckets, self.total) == (other.buckets, other.total)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Histogram({self.buckets!r}, {self.total!r})"
