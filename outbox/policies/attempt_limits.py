"""How often and until when a job is attempted, beyond ``max_tries``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from outbox.backoff import MAX_DELAY
from outbox.errors import InvalidOption
from outbox.policies.base import chosen

RetryUntil = float | timedelta | datetime
OnExpired = Literal["fail", "drop"]

FAIL, DROP = "fail", "drop"
MOST_TRIES = 65_535
"""What the column of attempts holds: the limit of a job that only has ``retry_until``."""


def check_retry_until(until: object) -> float | datetime:
    """Seconds from the dispatch, or a time in UTC."""
    if isinstance(until, datetime):
        if until.tzinfo is None or until.utcoffset() is None:
            raise InvalidOption(f"a retry_until given as a datetime needs a time zone; {until!r} has none")
        try:
            return until.astimezone(UTC)
        except OverflowError:
            raise InvalidOption(f"retry_until is a time that a calendar in UTC has, not {until!r}") from None
    return _seconds("retry_until", until, "seconds (up to ten years), a timedelta or an aware datetime")


def load_retry_until(value: object) -> float | datetime:
    """`check_retry_until` of what JSON makes of it."""
    return check_retry_until(datetime.fromisoformat(value) if isinstance(value, str) else value)


def check_expires_after(seconds: object) -> float:
    return _seconds("expires_after", seconds, "seconds (up to ten years) or a timedelta")


def _seconds(name: str, value: object, kinds: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DELAY:
        raise InvalidOption(f"{name} is {kinds}, over 0, not {value!r}")
    return float(seconds)


def check_max_exceptions(count: object) -> int:
    return _count("max_exceptions", count)


def check_max_snoozes(count: object) -> int:
    return _count("max_snoozes", count)


def _count(name: str, count: object) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_TRIES:
        raise InvalidOption(f"{name} is a whole number from 1 to {MOST_TRIES}, not {count!r}")
    return count


def check_fail_on_timeout(fail: object) -> bool:
    return _flag("fail_on_timeout", fail)


def check_dispatch_if(wanted: object) -> bool:
    return _flag("dispatch_if", wanted)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidOption(f"{name} is True or False, not {value!r}")
    return value


def check_on_expired(on_expired: object) -> str:
    if on_expired not in (FAIL, DROP):
        raise InvalidOption(f"on_expired is {FAIL!r} or {DROP!r}, not {on_expired!r}")
    return str(on_expired)


class AttemptCounts(BaseModel):
    """What a job with limits has counted so far. It is in the headers of the job, once there is something to count."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    exceptions: NonNegativeInt = 0
    snoozes: NonNegativeInt = 0


NO_COUNTS = AttemptCounts()


class AttemptLimits(NamedTuple):
    """The limits of one job: those of its dispatch, else those of its class. None where there is no limit."""

    retry_until: float | datetime | None = None
    max_exceptions: int | None = None
    fail_on_timeout: bool | None = None
    max_snoozes: int | None = None
    expires_after: float | None = None
    on_expired: str | None = None

    @property
    def timed(self) -> bool:
        """Whether it matters when the job was dispatched."""
        return self.retry_until is not None or self.expires_after is not None

    def expired(self, created_at: datetime, now: datetime) -> bool:
        return self.expires_after is not None and (now - created_at).total_seconds() > self.expires_after

    def retry_seconds(self, created_at: datetime, now: datetime) -> float | None:
        """Seconds that are left for the start of another attempt; None where no time is set."""
        if self.retry_until is None:
            return None
        if isinstance(self.retry_until, datetime):
            return (self.retry_until - now).total_seconds()
        return self.retry_until - (now - created_at).total_seconds()


_CHECKS = {
    "retry_until": check_retry_until,
    "max_exceptions": check_max_exceptions,
    "fail_on_timeout": check_fail_on_timeout,
    "max_snoozes": check_max_snoozes,
    "expires_after": check_expires_after,
    "on_expired": check_on_expired,
}


def limits_of(kind: type | None, options: Any) -> AttemptLimits | None:
    """The limits of a job of ``kind`` that was dispatched with ``options``; None where it has none."""
    given = {name: getattr(options, name) if kind is None else chosen(kind, options, name) for name in _CHECKS}
    values: dict[str, Any] = {name: _CHECKS[name](value) for name, value in given.items() if value is not None}
    return AttemptLimits(**values) if values else None


def described(limits: AttemptLimits | None, counts: AttemptCounts) -> list[str]:
    """Lines that tell an operator which limits a job has."""
    if limits is None:
        return []
    lines = []
    if limits.retry_until is not None:
        lines.append(f"no retry after {_time(limits.retry_until)}")
    if limits.max_exceptions is not None:
        lines.append(f"fails with exception {limits.max_exceptions}; {counts.exceptions} so far")
    if limits.fail_on_timeout:
        lines.append("fails when an attempt times out")
    if limits.max_snoozes is not None:
        lines.append(f"at most {limits.max_snoozes} snoozes; {counts.snoozes} so far")
    if limits.expires_after is not None:
        end = "dropped" if limits.on_expired == DROP else "failed"
        lines.append(f"{end} if no attempt has begun {_time(limits.expires_after)}")
    return lines


def _time(until: float | datetime) -> str:
    return f"{until:%Y-%m-%d %H:%M:%S} UTC" if isinstance(until, datetime) else f"{until:g} s after its dispatch"


def check_class(cls: type) -> None:
    """
    Raises:
        InvalidOption: options of a class do not go together.
    """
    if isinstance(getattr(cls, "retry_until", None), datetime):
        raise InvalidOption("retry_until of a class is seconds or a timedelta from the dispatch: dispatch takes a time")
    if getattr(cls, "on_expired", None) is not None and getattr(cls, "expires_after", None) is None:
        raise InvalidOption("on_expired says what becomes of a job after expires_after, which is not set")


def check_delay(kind: type, options: Any) -> None:
    """
    Raises:
        InvalidOption: a dispatch has the job expire before it is due.
    """
    expires_after = chosen(kind, options, "expires_after")
    if expires_after is None or options.delay is None:
        return
    late = options.delay
    if isinstance(late, datetime):
        late = (late - datetime.now(UTC)).total_seconds()
    if late >= check_expires_after(expires_after):
        raise InvalidOption(
            f"{getattr(kind, 'name', kind.__name__)}: expires_after counts from the dispatch, and a delay of "
            f"{late:g} s ends when the job has expired: raise expires_after, or shorten the delay"
        )
