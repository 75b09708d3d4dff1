"""Bulk operations: which jobs an operator means, what is done to them, and how far it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from outbox.errors import InvalidOption
from outbox.fingerprint import is_fingerprint
from outbox.ids import JobId
from outbox.options import check_queue

if TYPE_CHECKING:
    from outbox.drivers.values import FailedJob, StoredJob

COUNTED = 20_000
"""Jobs that a preview looks at. If there are more, its number is a lower bound."""
_LONGEST_TEXT = 255
_LONGEST_AGE = 10 * 365 * 86_400.0


class Verb(StrEnum):
    CANCEL = "cancel"
    """Remove live jobs, and stop those that run."""
    RETRY = "retry"
    """Put failed jobs back."""
    FORGET = "forget"
    """Remove failed jobs."""
    MOVE = "move"
    """Put live jobs that no worker holds into another queue."""

    @property
    def of_failed(self) -> bool:
        """Whether it is about failed jobs. The other verbs are about live ones."""
        return self in {Verb.RETRY, Verb.FORGET}


@dataclass(frozen=True, slots=True)
class BulkFilter:
    """Jobs of a queue, of a name (as stored), with a key, with an error, of an age, of a group; None stands for any.

    ``key`` is the name of an ordering, concurrency or fair key. ``error`` is a part of the last error of a live job; of
    a failed job it is the exception's type, with or without its module, or a part of its message. ``since`` and
    ``older_than`` are seconds: how long ago a live job was dispatched, or a failed one failed. ``group`` is the
    fingerprint of a group of failed jobs.
    """

    queue: str | None = None
    name: str | None = None
    key: str | None = None
    error: str | None = None
    since: float | None = None
    older_than: float | None = None
    group: str | None = None

    @property
    def is_any(self) -> bool:
        return self == BulkFilter()

    def given(self) -> dict[str, str | float]:
        """Its parts, without those that stand for any."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """What is to be done to which jobs. ``to`` is the queue to move them to."""

    verb: Verb
    matching: BulkFilter
    to: str | None = None

    def checked(self) -> BulkRequest:
        """
        Raises:
            InvalidOption: a part is of a wrong type or out of its range.
        """
        if self.verb is Verb.MOVE:
            if self.to is None:
                raise InvalidOption("a move needs the queue to move jobs to")
            check_queue(self.to)
        elif self.to is not None:
            raise InvalidOption(f"only a move has a queue to move jobs to, {self.verb} has none")
        if self.matching.queue is not None:
            check_queue(self.matching.queue)
        if self.matching.group is not None:
            self._check_group(self.matching.group)
        for name, value in self.matching.given().items():
            if isinstance(value, str) and not 1 <= len(value) <= _LONGEST_TEXT:
                raise InvalidOption(f"{name} is a text of 1 to {_LONGEST_TEXT} characters")
            if isinstance(value, float) and not 0 <= value <= _LONGEST_AGE:
                raise InvalidOption(f"{name} is a number of seconds, from 0 to ten years")
        return self

    def _check_group(self, group: str) -> None:
        if not self.verb.of_failed:
            raise InvalidOption(f"a group is one of failed jobs, and {self.verb} is about live jobs")
        if not is_fingerprint(group):
            raise InvalidOption("group is the fingerprint of a group of failed jobs: 16 digits of 0-9 and a-f")


class BulkState(StrEnum):
    WAITING = "waiting"
    """No worker has begun with it."""
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"

    @property
    def has_ended(self) -> bool:
        return self in {BulkState.FINISHED, BulkState.STOPPED}


@dataclass(frozen=True, slots=True)
class BulkPreview:
    """How many jobs an operation would be about if it began now, and the first of them, by id."""

    count: int
    at_least: bool
    """There are more jobs than the preview looked at: ``count`` is of those, and there may be more."""
    sample: tuple[StoredJob | FailedJob, ...] = ()


@dataclass(frozen=True, slots=True)
class BulkOperation:
    """A bulk operation as an operator sees it. Times are aware, in UTC, from the database's clock."""

    id: JobId
    request: BulkRequest
    by: str | None
    """Who asked for it, where that is known."""
    state: BulkState
    total: int | None
    """How many jobs matched when it was made; None where there were too many to count."""
    done: int
    refused: int
    """Failed jobs that stay, because a policy or the queue refuses them."""
    reason: str | None
    """Why the first of them was refused."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class OperationStore(Protocol):
    """A store that keeps bulk operations, and works them off."""

    async def preview(self, request: BulkRequest, most: int | None = None) -> BulkPreview:
        """It looks at ``most`` jobs, 20,000 without it."""

    async def start(self, request: BulkRequest, by: str | None = None) -> BulkOperation:
        """Store the operation. It is about the jobs that there are now."""

    async def get(self, operation_id: JobId) -> BulkOperation | None: ...

    async def latest(self, limit: int, before: JobId | None = None) -> list[BulkOperation]:
        """The newest first; ``before`` goes on after the last of an earlier page."""

    async def stop(self, operation_id: JobId, by: str | None = None) -> BulkOperation | None:
        """End an operation after the jobs that it has done. None where it had ended, or there is none."""

    async def is_open(self) -> bool:
        """Whether an operation has not ended: one statement, taking no lock."""

    async def work_off(self) -> float | None:
        """Do parts of open operations, for about a second. Seconds until there is more to do; None where there is
        nothing left, or other workers do it."""
