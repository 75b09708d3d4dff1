"""The audit log: who did what to which jobs. A database writes an entry in the transaction of the action."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from outbox.errors import InvalidOption
from outbox.ids import JobId, new_job_id

AUDIT_KEPT = 90 * 86_400.0
"""Seconds."""
LONGEST_BY = 255


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Times are aware, in UTC, from the database's clock."""

    id: JobId
    at: datetime
    by: str
    action: str
    target: Mapping[str, Any]
    """What was acted on: ids, a queue, the parts of a filter."""
    count: int
    """How many jobs, or other things, it has changed so far."""


@dataclass(slots=True)
class Act:
    """An action of a person. All of its transactions write to the entry ``id``."""

    id: JobId
    by: str
    action: str
    target: Mapping[str, Any]
    is_new: bool = False
    """No entry ``id`` may be there: if one is, the action was done before."""


_act: ContextVar[Act | None] = ContextVar("outbox_act", default=None)


def current_act() -> Act | None:
    return _act.get()


def check_by(by: str | None) -> str | None:
    """
    Raises:
        InvalidOption: it is no name.
    """
    if by is not None and (not isinstance(by, str) or not 1 <= len(by) <= LONGEST_BY):
        raise InvalidOption(f"by is the name of a person, 1 to {LONGEST_BY} characters, not {by!r:.80}")
    return by


@contextmanager
def acting(by: str | None, action: str, target: Mapping[str, Any], request: JobId | None = None) -> Iterator[None]:
    """In the block, changes that operators make are recorded as those of ``by``. With None they are not.

    ``request`` is the id of what asked for the action, such as a form: a database does what it asks for once.

    Raises:
        InvalidOption: ``by`` is no name.
    """
    if check_by(by) is None:
        yield
        return
    given = {name: value for name, value in target.items() if value not in (None, "", ())}
    token = _act.set(Act(request or new_job_id(), str(by), action, given, is_new=request is not None))
    try:
        yield
    finally:
        _act.reset(token)


class AuditLog(Protocol):
    """A store that keeps an audit log."""

    async def latest(self, limit: int, before: JobId | None = None) -> list[AuditEntry]:
        """The newest first; ``before`` goes on after the last of an earlier page.

        Raises:
            JobNotFound: there is no entry ``before``.
        """

    async def prune(self) -> int:
        """Forget entries that are older than 90 days; return how many."""
