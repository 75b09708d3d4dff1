"""An envelope is a job made ready to be stored: validated, serialised, its options resolved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from outbox import registry
from outbox.backoff import MAX_DELAY, Backoff
from outbox.errors import InvalidJob, InvalidOption, InvalidPayload, PayloadTooLarge
from outbox.ids import JobId, new_job_ids
from outbox.job import (
    BackoffOption,
    Job,
    as_backoff,
    check_max_tries,
    check_priority,
    check_queue,
    check_timeout,
)
from outbox.job_definition import other_handler
from outbox.payload import dump, load

DelayOption = float | timedelta | datetime
DEFAULT_PAYLOAD_LIMIT = 1024 * 1024

_LONGEST_DELAY = timedelta(seconds=MAX_DELAY)
# What is now by any clock, so that no database has to keep it, nor a claim to look for it among what was there before.
_LONG_PAST = timedelta(days=-1)


@dataclass(frozen=True, slots=True)
class Headers:
    """What travels beside the payload: the options of this dispatch, and whatever tracing adds.

    A value of ``None`` leaves the choice to the job's class and then to the worker.
    """

    max_tries: int | None = None
    timeout: float | None = None
    backoff: Backoff | None = None
    trace: dict[str, str] | None = None
    relayed_to: str | None = None
    """On a row that is on its way to another connection: the queue that the job will be in there."""
    relayed_delay: float | None = None
    """On such a row: the seconds after its writing until which the job is to wait over there."""
    relayed_until: datetime | None = None
    """The same as an absolute time."""

    def dump(self) -> str:
        if self is NO_HEADERS:
            return "{}"
        values: dict[str, Any] = {}
        if self.max_tries is not None:
            values["max_tries"] = self.max_tries
        if self.timeout is not None:
            values["timeout"] = self.timeout
        if self.backoff is not None:
            values["backoff"] = {"delays": self.backoff.delays, "jitter": self.backoff.jitter}
        if self.trace:
            values["trace"] = self.trace
        if self.relayed_to is not None:
            values["relayed_to"] = self.relayed_to
        if self.relayed_delay is not None:
            values["relayed_delay"] = self.relayed_delay
        if self.relayed_until is not None:
            values["relayed_until"] = self.relayed_until.isoformat()
        return json.dumps(values)

    @classmethod
    def load(cls, text: str) -> Headers:
        """
        Raises:
            InvalidPayload: the headers are not what ``dump`` writes.
        """
        if text == "{}":
            return NO_HEADERS
        try:
            values = json.loads(text)
            backoff = values.get("backoff")
            return cls(
                max_tries=None if values.get("max_tries") is None else check_max_tries(values["max_tries"]),
                timeout=None if values.get("timeout") is None else check_timeout(values["timeout"]),
                backoff=None if backoff is None else Backoff(backoff["delays"], jitter=backoff["jitter"]),
                trace=values.get("trace"),
                relayed_to=None if values.get("relayed_to") is None else check_queue(values["relayed_to"]),
                relayed_delay=None if values.get("relayed_delay") is None else check_delay(values["relayed_delay"]),
                relayed_until=None if values.get("relayed_until") is None else _moment(values["relayed_until"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InvalidOption) as error:
            raise InvalidPayload(f"the headers cannot be read: {type(error).__name__}: {error}") from error


NO_HEADERS = Headers()
"""What ``load`` returns where nothing is said, which is nearly always."""


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError(f"{text} has no time zone")
    return moment


class Envelope(NamedTuple):
    """One job to be stored. It becomes available ``delay`` seconds after it is written, by the database's clock, or at
    ``available_at`` where an absolute time was given."""

    id: JobId
    queue: str
    name: str
    priority: int
    payload: str
    headers: str = "{}"
    delay: float = 0.0
    available_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What one dispatch decides for its jobs; ``None`` leaves it to the job's class."""

    queue: str | None = None
    priority: int | None = None
    delay: float = 0.0
    available_at: datetime | None = None
    headers: str = "{}"
    payload_limit: int = DEFAULT_PAYLOAD_LIMIT

    @classmethod
    def checked(
        cls,
        *,
        queue: str | None = None,
        delay: DelayOption | None = None,
        priority: int | None = None,
        max_tries: int | None = None,
        timeout: float | None = None,
        backoff: BackoffOption | None = None,
        payload_limit: int = DEFAULT_PAYLOAD_LIMIT,
    ) -> Options:
        """
        Raises:
            InvalidOption: a value is of a wrong type or out of its range.
        """
        options = cls(
            queue=None if queue is None else check_queue(queue),
            priority=None if priority is None else check_priority(priority),
            payload_limit=payload_limit,
        )
        if delay is not None:
            options = _with_delay(options, delay)
        if max_tries is None and timeout is None and backoff is None:
            return options
        headers = Headers(
            max_tries=None if max_tries is None else check_max_tries(max_tries),
            timeout=None if timeout is None else check_timeout(timeout),
            backoff=None if backoff is None else as_backoff(backoff),
        )
        return replace(options, headers=headers.dump())


def _with_delay(options: Options, delay: DelayOption) -> Options:
    if isinstance(delay, datetime):
        if delay.tzinfo is None or delay.utcoffset() is None:
            raise InvalidOption(f"a delay given as a datetime needs a time zone; {delay!r} has none")
        # By this process's clock, which will do for mistakes; whether the moment has come, the database's clock says.
        left = delay - datetime.now(UTC)
        if left > _LONGEST_DELAY:
            raise InvalidOption(f"a delay given as a datetime is at most ten years ahead; {delay!r} is more")
        return options if left < _LONG_PAST else replace(options, available_at=delay.astimezone(UTC))
    return replace(options, delay=check_delay(delay.total_seconds() if isinstance(delay, timedelta) else delay))


def check_delay(seconds: object) -> float:
    """
    Raises:
        InvalidOption: it is no number, or over ten years.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds <= MAX_DELAY:
        raise InvalidOption(f"a delay is seconds (up to ten years), a timedelta or an aware datetime, not {seconds!r}")
    return max(0.0, float(seconds))


_NO_OPTIONS = Options()


def serialize(job: Job, options: Options = _NO_OPTIONS) -> Envelope:
    """`serialize_many` for one job."""
    return serialize_many((job,), options)[0]


def serialize_many(jobs: Sequence[Job], options: Options = _NO_OPTIONS) -> list[Envelope]:
    """Validate and serialise ``jobs``, which get their ids in this order.

    The serialised form is validated, not the object: what a worker will load is what was checked here, even where
    fields were set after construction.

    Raises:
        InvalidJob: a field does not validate, cannot be serialised, or would not survive a JSON column.
        PayloadTooLarge: the payload is larger than the limit.
    """
    queue, priority = options.queue, options.priority
    known: type | None = None
    envelopes: list[Envelope] = []
    for job_id, job in zip(new_job_ids(len(jobs)), jobs, strict=True):
        if type(job) is not known:
            _check_kind(job)
            known = type(job)
        payload = dump(job)
        if len(payload) > options.payload_limit:
            raise PayloadTooLarge(
                f"{job.name}: the payload is {len(payload):,} bytes, the limit {options.payload_limit:,}: store the "
                "data elsewhere and dispatch its key, or raise OUTBOX_PAYLOAD_LIMIT"
            )
        envelopes.append(
            Envelope(
                job_id,
                queue or job.queue,
                job.name,
                job.priority if priority is None else priority,
                payload.decode(),
                options.headers,
                options.delay,
                options.available_at,
            )
        )
    return envelopes


def _check_kind(job: object) -> None:
    if not isinstance(job, Job):
        raise InvalidJob(f"dispatch takes a Job, not {_described(job)}")
    if not registry.is_registered(job.name):
        other = other_handler(type(job))
        hint = f": rename its method `{other}`" if other else ""
        raise InvalidJob(f"{job.name} has no method `handle`, so no worker could run it{hint}")


def _described(value: object) -> str:
    if isinstance(value, type) and issubclass(value, Job):
        return f"the class {value.__qualname__}: dispatch an instance of it"
    return f"a {type(value).__name__}"


def deserialize(name: str, payload: str) -> Job:
    """The job that was stored as ``name`` and ``payload``.

    Raises:
        UnknownJob: no class is registered under ``name``.
        InvalidPayload: the payload is not JSON, or does not validate.
    """
    return load(registry.resolve(name), name, payload)
