"""The options of a job, each declared once: its name, type, check, default, and where it can be set.

A dispatch goes before the job's class, and the class before the flags of the worker that runs the job.

A new option takes:

1. a field of `JobOptions` with its `Option`,
2. the type that callers see: a key of `DispatchOptions`, a class variable of `outbox.Job`, and a field of
   `outbox.WorkerOptions` with its flag if a worker can set it, too,
3. the code that uses it.

The definition of a class, the dispatch, the headers and the worker's retry policy read the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import Flag, auto
from operator import attrgetter
from typing import Annotated, Any, Literal, TypedDict, Unpack, get_type_hints

from outbox.backoff import MAX_DELAY, Backoff
from outbox.errors import InvalidOption
from outbox.policies import attempt_limits, keys, rate_limits
from outbox.policies.attempt_limits import OnExpired, RetryUntil
from outbox.policies.rate_limits import RateLimit
from outbox.policies.results import check_keep_for
from outbox.policies.unique import (
    OnConflict,
    check_on_conflict,
    check_seconds,
    check_unique,
    check_unique_until,
    check_when_running,
)

BackoffOption = float | Sequence[float] | Backoff
DelayOption = float | timedelta | datetime
UntilOption = Literal["start", "end"] | float | timedelta

QUEUE_NAME = re.compile(r"[a-z0-9._-]{1,64}")
RELAY_PREFIX = ">"
"""Of the queues in which rows wait for a relay: no name of a queue begins like this."""
PRIORITIES = range(10)

_LONGEST_DELAY = timedelta(seconds=MAX_DELAY)
_LONG_PAST = timedelta(days=-1)


class SetBy(Flag):
    """Where an option can be set."""

    CLASS = auto()
    DISPATCH = auto()
    WORKER = auto()


ANYWHERE = SetBy.CLASS | SetBy.DISPATCH | SetBy.WORKER


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of one option, beside its name and its type."""

    check: Callable[[Any], Any]
    """Returns a given value as it is used. Raises `InvalidOption` for one of a wrong type or out of its range."""
    default: Any = None
    """The value for a class that does not set it. None leaves the choice to the worker, or to the settings."""
    set_by: SetBy = SetBy.CLASS | SetBy.DISPATCH
    in_headers: bool = False
    """A dispatch's value is stored in the headers of the job, for the worker that runs it."""
    load: Callable[[Any], Any] | None = None
    """Makes a value of its JSON in the headers, where ``check`` does not."""
    may_be_method: bool = False
    """A class may have a method of this name instead of a value."""


def check_connection(connection: object) -> str:
    if not isinstance(connection, str) or not connection:
        raise InvalidOption(f"a connection is the name of one, not {connection!r}")
    return connection


def connection_or(default: str, connection: str | None) -> str:
    """The name that was given, else the default one. An empty name, as of a variable that is not set, is neither.

    Raises:
        InvalidOption: it is no name.
    """
    return default if connection is None else check_connection(connection)


def check_queue(queue: object) -> str:
    if not isinstance(queue, str) or not QUEUE_NAME.fullmatch(queue):
        raise InvalidOption(f"a queue's name is 1 to 64 of the characters a-z 0-9 . _ -, not {queue!r}")
    return queue


def check_priority(priority: object) -> int:
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in PRIORITIES:
        raise InvalidOption(f"a priority is a whole number from 0 (first) to 9, not {priority!r}")
    return priority


def check_max_tries(max_tries: object) -> int:
    if isinstance(max_tries, bool) or not isinstance(max_tries, int) or not 1 <= max_tries <= attempt_limits.MOST_TRIES:
        raise InvalidOption(f"max_tries is a whole number from 1 to 65535, not {max_tries!r}")
    return max_tries


def check_timeout(timeout: object) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= MAX_DELAY:
        raise InvalidOption(f"a timeout is a number of seconds, 0 for no limit, not {timeout!r}")
    return float(timeout)


def check_encrypt(encrypt: object) -> bool:
    if not isinstance(encrypt, bool):
        raise InvalidOption(f"encrypt is True or False, not {encrypt!r}")
    return encrypt


def as_backoff(backoff: BackoffOption) -> Backoff:
    """
    Raises:
        InvalidOption: as `Backoff`.
    """
    return backoff if isinstance(backoff, Backoff) else Backoff(backoff)


def load_backoff(values: dict[str, Any]) -> Backoff:
    return Backoff(values["delays"], jitter=values["jitter"])


def check_delay(seconds: object) -> float:
    """
    Raises:
        InvalidOption: ``seconds`` is no number, or over ten years.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds <= MAX_DELAY:
        raise InvalidOption(f"a delay is seconds (up to ten years), a timedelta or an aware datetime, not {seconds!r}")
    return max(0.0, float(seconds))


def as_delay(delay: DelayOption) -> float | datetime:
    """Seconds, or a time in UTC. A time that has long passed is no delay.

    Raises:
        InvalidOption: ``delay`` is of a wrong type, has no time zone, or is over ten years ahead.
    """
    if not isinstance(delay, datetime):
        return check_delay(delay.total_seconds() if isinstance(delay, timedelta) else delay)
    if delay.tzinfo is None or delay.utcoffset() is None:
        raise InvalidOption(f"a delay given as a datetime needs a time zone; {delay!r} has none")
    # By this process's clock, which is good enough to find mistakes. The database's clock decides when the job is due.
    left = delay - datetime.now(UTC)
    if left > _LONGEST_DELAY:
        raise InvalidOption(f"a delay given as a datetime is at most ten years ahead; {delay!r} is more")
    # What is due by any clock is not stored with a time, and so not among the jobs that claims have passed.
    return 0.0 if left < _LONG_PAST else delay.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The checked options of one dispatch. None leaves the choice to the job's class, and then to the worker."""

    connection: Annotated[str | None, Option(check_connection)] = None
    queue: Annotated[str | None, Option(check_queue, default="default")] = None
    delay: Annotated[float | datetime | None, Option(as_delay, set_by=SetBy.DISPATCH)] = None
    priority: Annotated[int | None, Option(check_priority, default=5)] = None
    max_tries: Annotated[int | None, Option(check_max_tries, set_by=ANYWHERE, in_headers=True)] = None
    timeout: Annotated[float | None, Option(check_timeout, set_by=ANYWHERE, in_headers=True)] = None
    backoff: Annotated[
        Backoff | None, Option(as_backoff, set_by=ANYWHERE, in_headers=True, load=load_backoff, may_be_method=True)
    ] = None
    concurrency_key: Annotated[str | None, Option(keys.check_key, may_be_method=True)] = None
    concurrency_limit: Annotated[int | None, Option(keys.check_limit)] = None
    on_full: Annotated[str | None, Option(keys.one_of("on_full", *keys.OnFull))] = None
    ordering_key: Annotated[str | None, Option(keys.check_key, may_be_method=True)] = None
    on_failed: Annotated[str | None, Option(keys.one_of("on_failed", *keys.OnFailed))] = None
    ordering: Annotated[str | None, Option(keys.one_of("ordering", "strict"))] = None
    fair_key: Annotated[str | None, Option(keys.check_key, may_be_method=True)] = None
    fair_weight: Annotated[int | None, Option(keys.check_weight)] = None
    rate: Annotated[str | RateLimit | Sequence[str | RateLimit] | None, Option(rate_limits.check_rate)] = None
    burst: Annotated[int | None, Option(rate_limits.check_burst)] = None
    rate_key: Annotated[str | None, Option(rate_limits.check_key, may_be_method=True)] = None
    cost: Annotated[int | None, Option(rate_limits.check_cost, may_be_method=True)] = None
    align: Annotated[str | None, Option(rate_limits.check_align)] = None
    unique: Annotated[bool | tuple[str, ...] | None, Option(check_unique)] = None
    unique_until: Annotated[str | float | None, Option(check_unique_until)] = None
    on_conflict: Annotated[OnConflict | None, Option(check_on_conflict)] = None
    when_running: Annotated[str | None, Option(check_when_running)] = None
    debounce: Annotated[float | None, Option(check_seconds)] = None
    max_wait: Annotated[float | None, Option(check_seconds)] = None
    retry_until: Annotated[
        float | datetime | None,
        Option(attempt_limits.check_retry_until, in_headers=True, load=attempt_limits.load_retry_until),
    ] = None
    max_exceptions: Annotated[int | None, Option(attempt_limits.check_max_exceptions, in_headers=True)] = None
    fail_on_timeout: Annotated[bool | None, Option(attempt_limits.check_fail_on_timeout, in_headers=True)] = None
    max_snoozes: Annotated[int | None, Option(attempt_limits.check_max_snoozes, in_headers=True)] = None
    expires_after: Annotated[float | None, Option(attempt_limits.check_expires_after, in_headers=True)] = None
    on_expired: Annotated[str | None, Option(attempt_limits.check_on_expired, in_headers=True)] = None
    dispatch_if: Annotated[bool | None, Option(attempt_limits.check_dispatch_if, may_be_method=True)] = None
    encrypt: Annotated[bool | None, Option(check_encrypt, default=False)] = None
    keep_for: Annotated[float | None, Option(check_keep_for, in_headers=True)] = None

    @classmethod
    def checked(cls, **given: Unpack[DispatchOptions]) -> JobOptions:
        """
        Raises:
            InvalidOption: a value is of a wrong type or out of its range.
        """
        values: dict[str, Any] = {
            name: OPTIONS[name].check(value) for name, value in given.items() if value is not None
        }
        return cls(**values) if values else NO_OPTIONS


class DispatchOptions(TypedDict, total=False):
    """The options of a dispatch, as `outbox.dispatch` describes them; each left out, or None, is the job class's."""

    connection: str | None
    queue: str | None
    delay: DelayOption | None
    priority: int | None
    max_tries: int | None
    timeout: float | None
    backoff: BackoffOption | None
    concurrency_key: str | None
    concurrency_limit: int | None
    on_full: Literal["wait", "skip", "replace_running"] | None
    ordering_key: str | None
    on_failed: Literal["block", "skip"] | None
    ordering: Literal["strict"] | None
    fair_key: str | None
    fair_weight: int | None
    rate: str | RateLimit | Sequence[str | RateLimit] | None
    burst: int | None
    rate_key: str | None
    cost: int | None
    align: Literal["second", "minute", "hour", "day"] | None
    unique: bool | Sequence[str] | None
    unique_until: UntilOption | None
    on_conflict: Literal["ignore", "raise", "replace"] | None
    when_running: Literal["queue_one", "skip"] | None
    debounce: float | timedelta | None
    max_wait: float | timedelta | None
    retry_until: RetryUntil | None
    max_exceptions: int | None
    fail_on_timeout: bool | None
    max_snoozes: int | None
    expires_after: float | timedelta | None
    on_expired: OnExpired | None
    dispatch_if: bool | None
    encrypt: bool | None
    keep_for: float | timedelta | None


NO_OPTIONS = JobOptions()

_hints = get_type_hints(JobOptions, include_extras=True)
OPTIONS: dict[str, Option] = {field.name: _hints[field.name].__metadata__[0] for field in fields(JobOptions)}


def _names(set_by: SetBy) -> tuple[str, ...]:
    return tuple(name for name, option in OPTIONS.items() if set_by in option.set_by)


CLASS_OPTIONS = _names(SetBy.CLASS)
DISPATCH_OPTIONS = _names(SetBy.DISPATCH)
WORKER_OPTIONS = _names(SetBy.WORKER)
HEADER_OPTIONS = tuple(name for name, option in OPTIONS.items() if option.in_headers)

worker_options_of: Callable[[Any], tuple[Any, ...]] = attrgetter(*WORKER_OPTIONS)
"""The values of `WORKER_OPTIONS`, of a job class, of a dispatch or of a worker."""


def check_class_options(cls: type) -> None:
    """
    Raises:
        InvalidOption: an option of a job class is of a wrong type or out of its range.
    """
    for name in CLASS_OPTIONS:
        option, value = OPTIONS[name], getattr(cls, name)
        left_open = value is None and option.default is None
        if not left_open and not (option.may_be_method and callable(value)):
            option.check(value)
    keys.check_class(cls)
    rate_limits.check_class(cls)
    attempt_limits.check_class(cls)
