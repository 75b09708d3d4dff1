"""Resolves ids of jobs as they are typed on the command line."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import click

from outbox.ids import JobId

_DIGITS = re.compile(r"[0-9a-f]{8,32}")
_WHOLE_ID = 32

Find = Callable[[str], Awaitable[list[JobId]]]


@dataclass(frozen=True, slots=True)
class FoundIds:
    """``unknown`` are those that match no job, as they were typed."""

    ids: tuple[JobId, ...]
    unknown: tuple[str, ...]

    def missing(self, done: Collection[JobId]) -> list[str]:
        """The ids without a job, after ``done`` were retried, removed or cancelled."""
        return [*self.unknown, *(str(job_id) for job_id in self.ids if job_id not in set(done))]


async def look_up(typed: Sequence[str], find: Find) -> FoundIds:
    """Resolve whole ids, and parts of ids with ``find``: at least 8 characters of the beginning or the end.

    Raises:
        click.UsageError: one is not an id, or matches several jobs.
    """
    ids: list[JobId] = []
    unknown: list[str] = []
    for one in typed:
        digits = one.strip().replace("-", "").replace("…", "").lower()
        if not _DIGITS.fullmatch(digits):
            raise click.UsageError(f"{one!r} is not a job's id, nor 8 or more characters of its beginning or end")
        found = [JobId(hex=digits)] if len(digits) == _WHOLE_ID else await find(digits)
        if len(found) > 1:
            raise click.UsageError(f"{one} may mean any of: {', '.join(map(str, found))}")
        if found:
            ids.append(found[0])
        else:
            unknown.append(one)
    return FoundIds(tuple(ids), tuple(unknown))
