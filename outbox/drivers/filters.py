"""Which jobs an operator means: filters of live and of failed jobs, and places at which a page of live jobs ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from outbox.errors import InvalidOption
from outbox.ids import JobId

if TYPE_CHECKING:
    from outbox.drivers.values import FailedJob, FinishedJob, JobState, StoredJob
    from outbox.settlement import Failure

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS = 4

HOURS_OF_A_GROUP = 24
"""For so many hours, a group of failed jobs shows how many there were."""

EXAMINED_PER_PAGE = 4_000
"""How many jobs one page of live jobs looks at, whatever its filter lets through."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Live jobs of a queue, of a name (as stored), in a state, with an ordering, concurrency or fair key of the name
    ``key``; None stands for any."""

    queue: str | None = None
    name: str | None = None
    state: JobState | None = None
    key: str | None = None


class JobPlace(NamedTuple):
    """Where a live job is in the order in which a store lists jobs. As text it is ``queue:priority:moment:id``."""

    queue: str
    priority: int
    available_at: datetime
    id: JobId

    @classmethod
    def of(cls, job: StoredJob) -> JobPlace:
        return cls(job.queue, job.priority, job.available_at, job.id)

    def __str__(self) -> str:
        return f"{self.queue}:{self.priority}:{_microseconds(self.available_at)}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> JobPlace:
        """
        Raises:
            InvalidOption: no page of jobs ended there.
        """
        try:
            queue, priority, microseconds, job_id = text.split(":", _PARTS - 1)
            return cls(queue, int(priority), _moment(microseconds), JobId(job_id))
        except (ValueError, OverflowError):
            raise InvalidOption(f"{text!r} is no place at which a page of jobs ended") from None


@dataclass(frozen=True, slots=True)
class JobPage:
    """``next`` is where the following page begins, None at the end. A page may have no job and a ``next``: then as many
    jobs were looked at as one page may, and none passed the filter."""

    jobs: Sequence[StoredJob]
    next: JobPlace | None


class FinishedPlace(NamedTuple):
    """Where a kept finished job is among them, the latest first. As text it is ``moment:id``."""

    finished_at: datetime
    id: JobId

    @classmethod
    def of(cls, job: FinishedJob) -> FinishedPlace:
        return cls(job.finished_at, job.id)

    def __str__(self) -> str:
        return f"{_microseconds(self.finished_at)}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> FinishedPlace:
        """
        Raises:
            InvalidOption: no page of finished jobs ended there.
        """
        try:
            microseconds, job_id = text.split(":")
            return cls(_moment(microseconds), JobId(job_id))
        except (ValueError, OverflowError):
            raise InvalidOption(f"{text!r} is no place at which a page of finished jobs ended") from None


@dataclass(frozen=True, slots=True)
class FinishedPage:
    """As `JobPage`, of finished jobs that are kept."""

    jobs: Sequence[FinishedJob]
    next: FinishedPlace | None


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: str) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds))


@dataclass(frozen=True, slots=True)
class FailedFilter:
    """Failed jobs of a name, with an error, that failed in the last so many seconds; None stands for any.

    ``error`` is the exception's type, with or without its module, or a part of its message, in this very case.
    ``group`` is a fingerprint.
    """

    name: str | None = None
    error: str | None = None
    since: float | None = None
    group: str | None = None

    def matches(self, name: str, failure: Failure) -> bool:
        """Whether a job passes, whenever it failed."""
        if self.name is not None and name != self.name:
            return False
        if self.group is not None and failure.fingerprint != self.group:
            return False
        kind = failure.type
        return self.error is None or self.error in {kind, kind.rpartition(".")[2]} or self.error in failure.message

    @property
    def is_any(self) -> bool:
        return self == ANY_FAILED


ANY_FAILED = FailedFilter()

FAILED_EXAMINED = 1_500
"""How many failed jobs one page looks at where no index finds those that match: by name alone, or by an error."""

BLOCKED_EXAMINED = 1_000
"""The same for those that block a key, of which the overview tells too."""


@dataclass(frozen=True, slots=True)
class FailedPage:
    """``next`` is the id after which the following page begins, None at the end. A page may have no job and a ``next``:
    then as many were looked at as one page may, and none passed the filter."""

    jobs: Sequence[FailedJob]
    next: JobId | None


@dataclass(frozen=True, slots=True)
class BlockedPage:
    """The failed jobs that block ordering keys, with the names of their keys, among `BLOCKED_EXAMINED` failed jobs.
    ``next`` is the id after which the following page looks, None at the end."""

    keys: Mapping[JobId, str]
    next: JobId | None


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """Failed jobs of one name whose exceptions are of one type and have one fingerprint."""

    connection: str
    name: str
    error: str
    count: int
    first: datetime
    last: datetime
    fingerprint: str = ""
    """Empty for failures that an earlier release has stored, until a worker has given them one."""
    at_least: bool = False
    """``count`` is a lower bound: there are more jobs than one reading counts."""
