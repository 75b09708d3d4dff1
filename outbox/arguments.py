"""Arguments of functions that look at what is stored: ids and limits as callers give them."""

from __future__ import annotations

from uuid import UUID

from outbox.errors import InvalidOption
from outbox.ids import JobId

MOST_PER_PAGE = 10_000
AnyId = UUID | str


def check_id(given: AnyId, what: str = "a job's id") -> JobId:
    """
    Raises:
        InvalidOption: it is no id.
    """
    if isinstance(given, JobId):
        return given
    try:
        return JobId(str(given) if isinstance(given, UUID) else given)
    except (ValueError, AttributeError, TypeError):
        raise InvalidOption(f"{what} is a UUID, not {given!r}") from None


def check_limit(limit: int, most: int = MOST_PER_PAGE) -> int:
    """
    Raises:
        InvalidOption: it is no whole number from 1 to ``most``, 10,000 by default.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= most:
        raise InvalidOption(f"a limit is a whole number from 1 to {most:,}, not {limit!r}")
    return limit
