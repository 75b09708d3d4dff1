"""What one claim costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.counters import Reads


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a claim of 100 jobs, by several of them."""

    rows: float
    """Rows that the server's storage engine handed to its statements: the median."""
    pages: float
    """Pages that the whole server looked at meanwhile: what shows how many dead index entries were walked over. The
    fewest of any claim, because the server has work of its own in the background."""
    milliseconds: float
    """The median."""

    @classmethod
    def of(cls, reads: Sequence[Reads], seconds: Sequence[float]) -> Cost:
        return cls(
            rows=median(each.rows for each in reads),
            pages=min(each.pages for each in reads),
            milliseconds=1_000 * median(seconds),
        )
