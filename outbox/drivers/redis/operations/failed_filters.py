"""Failed jobs that stay in Redis, by name and error: read a thousand at a time, because nothing there indexes them."""

from __future__ import annotations

from collections.abc import Iterable

from outbox.drivers.filters import FailedFilter, FailedGroup
from outbox.drivers.values import FailedJob


def passing(jobs: Iterable[FailedJob], matching: FailedFilter) -> list[FailedJob]:
    return [job for job in jobs if matching.matches(job.name, job.failure)]


class Groups:
    """Counts failed jobs by connection, name and type of exception."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str], FailedGroup] = {}

    def add(self, jobs: Iterable[FailedJob]) -> None:
        for job in jobs:
            key = (job.connection, job.name, job.failure.type)
            known = self._groups.get(key)
            if known is None:
                self._groups[key] = FailedGroup(*key, 1, job.failed_at, job.failed_at)
                continue
            first, last = min(known.first, job.failed_at), max(known.last, job.failed_at)
            self._groups[key] = FailedGroup(*key, known.count + 1, first, last)

    def largest(self, limit: int) -> list[FailedGroup]:
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.name, group.error))[:limit]
