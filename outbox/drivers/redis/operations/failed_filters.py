"""Failed jobs that stay in Redis, by name and error: read a thousand at a time, because nothing there indexes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from outbox.drivers.filters import HOURS_OF_A_GROUP, FailedFilter, FailedGroup
from outbox.drivers.values import FailedJob


def passing(jobs: Iterable[FailedJob], matching: FailedFilter) -> list[FailedJob]:
    return [job for job in jobs if matching.matches(job.name, job.failure)]


class Groups:
    """Counts failed jobs by connection, name, type of exception and fingerprint."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str, str], FailedGroup] = {}

    def add(self, jobs: Iterable[FailedJob]) -> None:
        for job in jobs:
            key = (job.connection, job.name, job.failure.type, job.fingerprint)
            known = self._groups.get(key)
            if known is None:
                self._groups[key] = FailedGroup(*key[:3], 1, job.failed_at, job.failed_at, job.fingerprint)
                continue
            first, last = min(known.first, job.failed_at), max(known.last, job.failed_at)
            self._groups[key] = FailedGroup(*key[:3], known.count + 1, first, last, job.fingerprint)

    def largest(self, limit: int) -> list[FailedGroup]:
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.name, group.error))[:limit]


class HourlyCounts:
    """How many jobs of each group failed in each of the last 24 hours, the oldest first."""

    def __init__(self, groups: Sequence[FailedGroup], now: datetime) -> None:
        self.found = [[0] * HOURS_OF_A_GROUP for _ in groups]
        self._places = {(group.fingerprint, group.name): place for place, group in enumerate(groups)}
        self._now = now

    def add(self, jobs: Iterable[FailedJob]) -> None:
        for job in jobs:
            place = self._places.get((job.fingerprint, job.name))
            ago = int((self._now - job.failed_at) / timedelta(hours=1)) + 1
            if place is not None and 1 <= ago <= HOURS_OF_A_GROUP:
                self.found[place][-ago] += 1
