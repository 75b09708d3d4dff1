"""An envelope is a job made ready to be stored: validated, serialised, its options resolved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from outbox import registry
from outbox.errors import InvalidJob, InvalidOption, InvalidPayload, PayloadTooLarge
from outbox.ids import JobId, new_job_ids
from outbox.job import Job
from outbox.job_definition import other_handler
from outbox.options import HEADER_OPTIONS, NO_OPTIONS, OPTIONS, JobOptions, check_delay, check_queue
from outbox.payload import dump, load, load_version
from outbox.policies import attempt_limits
from outbox.policies.attempt_limits import AttemptCounts
from outbox.policies.base import Declaration, Policies
from outbox.policies.batch import BatchHeader
from outbox.policies.chain import ChainHeader, Link
from outbox.policies.declarations import declarations, declares_nothing
from outbox.policies.keys import KeyHeader
from outbox.policies.rate_limits import RateHeader
from outbox.policies.schedule import Tick
from outbox.policies.unique import UniqueHeaders

DEFAULT_PAYLOAD_LIMIT = 1024 * 1024


class Headers(BaseModel):
    """What is stored beside the payload: the options of the dispatch, and what tracing and the relay add.

    In JSON, the options stand beside the other headers. Headers of a later version are kept, and written again.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    options: InstanceOf[JobOptions] = NO_OPTIONS
    trace: dict[str, str] | None = None
    relayed_to: Annotated[str, BeforeValidator(check_queue)] | None = None
    """On a row that waits for the relay: the queue of the job on the other connection."""
    relayed_delay: Annotated[float, BeforeValidator(check_delay)] | None = None
    """On such a row: seconds after its INSERT until which the job waits on the other connection."""
    relayed_until: AwareDatetime | None = None
    """The same as an absolute time."""
    tick: Tick | None = None
    """Of a job of a schedule."""
    unique: UniqueHeaders | None = None
    policies: int | None = None
    """Of a job on another connection than the database: the bits of its policies."""
    keys: KeyHeader | None = None
    chain: ChainHeader | None = None
    batch: BatchHeader | None = None
    rates: RateHeader | None = None
    counts: AttemptCounts | None = None
    """Exceptions and snoozes of a job that limits them."""
    encrypted: bool | None = None
    """Of a job whose payload is encrypted: `encrypted_jobs`."""
    version: Annotated[int, Field(ge=1)] | None = None
    """Of the payload, where its class has one."""

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, values: Any) -> Any:
        if not isinstance(values, dict) or isinstance(values.get("options"), JobOptions):
            return values
        headers, options = dict(values), {}
        for name in headers.keys() & HEADER_OPTIONS:
            if (value := headers.pop(name)) is not None:
                options[name] = (OPTIONS[name].load or OPTIONS[name].check)(value)
        return headers | {"options": JobOptions(**options) if options else NO_OPTIONS}

    @field_validator("chain")
    @classmethod
    def _links_can_be_read(cls, chain: ChainHeader | None) -> ChainHeader | None:
        """Each next job is made in the settlement of the one before, where it would be too late to refuse it."""
        if chain is not None:
            for link in (*chain.rest, *([] if chain.catch is None else [chain.catch])):
                cls.load(link.headers)
        return chain

    def dump(self) -> str:
        """As JSON: ``{}`` where there is nothing to say, which is nearly always."""
        if self is NO_HEADERS:
            return "{}"
        options = {name: getattr(self.options, name) for name in HEADER_OPTIONS}
        known = options | {name: getattr(self, name) for name in type(self).model_fields if name != "options"}
        values = {name: value for name, value in known.items() if value is not None}
        return to_json(values | (self.model_extra or {})).decode()

    @classmethod
    def load(cls, text: str) -> Headers:
        """
        Raises:
            InvalidPayload: the headers are not what `dump` writes.
        """
        if text == "{}":
            return NO_HEADERS
        return _parsed_before(text) if len(text) <= _LONGEST_KEPT else _parsed(text)


NO_HEADERS = Headers()

_LONGEST_KEPT = 1_024
"""Characters of headers that are kept when they have been read: a claim, an attempt and a settlement read the same
ones, and jobs of a key often have the same."""


def _parsed(text: str) -> Headers:
    try:
        return Headers.model_validate_json(text)
    except (ValidationError, InvalidOption, KeyError, TypeError) as error:
        raise InvalidPayload(f"the headers cannot be read: {type(error).__name__}: {error}") from error


_parsed_before = lru_cache(2_048)(_parsed)


def policies_in(headers: str) -> int | None:
    """The bits of policies that the headers of a job on another connection name; None for a job without any."""
    if '"policies"' not in headers:
        return None
    try:
        return Headers.load(headers).policies
    except InvalidPayload:
        return None


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
    policies: int | None = None
    """Bits of `Policies`; None for a job without any."""
    encrypted_for: Callable[[JobId | str], str] | None = None
    """Of an encrypted job: its payload, encrypted for a job of another id."""


def stored_bytes(envelope: Envelope) -> int:
    """Bytes of its payload and its headers."""
    payload = envelope.payload
    return len(envelope.headers) + (len(payload) if payload.isascii() else len(payload.encode()))


def with_headers(envelope: Envelope, **values: Any) -> Envelope:
    """``envelope`` with more of the fields of `Headers`."""
    return envelope._replace(headers=Headers.load(envelope.headers).model_copy(update=values).dump())


def as_member(envelope: Envelope, header: BatchHeader) -> Envelope:
    """``envelope`` as a member of a batch."""
    member = with_headers(envelope, batch=header)
    return member._replace(policies=(member.policies or 0) | Policies.BATCH)


def link_of(envelope: Envelope) -> Link:
    return Link(
        id=None if envelope.encrypted_for is None else envelope.id,
        queue=envelope.queue,
        name=envelope.name,
        priority=envelope.priority,
        payload=envelope.payload,
        headers=envelope.headers,
        bits=envelope.policies,
    )


def from_link(link: Link, job_id: JobId) -> Envelope:
    """The job of ``link``, with the id ``job_id`` unless it was encrypted for one."""
    made = link.id or job_id
    return Envelope(made, link.queue, link.name, link.priority, link.payload, link.headers, policies=link.bits)


def serialize(job: Job, options: JobOptions = NO_OPTIONS, *, payload_limit: int = DEFAULT_PAYLOAD_LIMIT) -> Envelope:
    """`serialize_many` for one job."""
    return serialize_many((job,), options, payload_limit=payload_limit)[0]


def serialize_many(
    jobs: Sequence[Job], options: JobOptions = NO_OPTIONS, *, payload_limit: int = DEFAULT_PAYLOAD_LIMIT
) -> list[Envelope]:
    """Validate and serialise ``jobs``, which get their ids in this order. ``payload_limit`` is bytes for each.

    The serialised form is validated, not the object: what a worker will load is what was checked here, even where
    fields were set after construction.

    Raises:
        InvalidJob: a field does not validate, cannot be serialised, or would not survive a JSON column.
        PayloadTooLarge: the payload is larger than the limit.
    """
    queue, priority, plain_headers = options.queue, options.priority, headers_of(options)
    delay, available_at = _delay(options)
    policies: int | None = None
    known: type | None = None
    declared: Sequence[Declaration] = ()
    envelopes: list[Envelope] = []
    for job_id, job in zip(new_job_ids(len(jobs)), jobs, strict=True):
        if type(job) is not known:
            _check_kind(job)
            known = type(job)
            declared = () if options is NO_OPTIONS and declares_nothing(known) else declarations(known, options)
            if options.delay is not None:
                attempt_limits.check_delay(known, options)
            headers, policies, put_off = plain_headers, None, delay
            if known.version is not None:
                headers = headers_of(options, known.version)
            if declared and available_at is None and not delay:
                put_off = max(each.delay or 0.0 for each in declared)
        payload = dump(job)
        if len(payload) > payload_limit:
            raise PayloadTooLarge(
                f"{job.name}: the payload is {len(payload):,} bytes, the limit {payload_limit:,}: store the "
                "data elsewhere and dispatch its key, or raise OUTBOX_PAYLOAD_LIMIT"
            )
        if declared:
            headers, policies = _declared(declared, options, job, payload)
        envelopes.append(
            Envelope(
                job_id,
                queue or job.queue,
                job.name,
                job.priority if priority is None else priority,
                payload.decode(),
                headers,
                put_off,
                available_at,
                policies,
            )
        )
    return envelopes


def _declared(declared: Sequence[Declaration], options: JobOptions, job: Job, payload: bytes) -> tuple[str, int | None]:
    """The headers and the bits of a job with policies."""
    values = {each.header: each.value(job, payload) for each in declared}
    headers = Headers(options=options, version=job.version).model_copy(update=values)
    return headers.dump(), sum(each.policy for each in declared)


def headers_of(options: JobOptions, version: int | None = None) -> str:
    """The headers of jobs that are dispatched with ``options``, and whose class has this ``version``."""
    if version is None and (options is NO_OPTIONS or all(getattr(options, name) is None for name in HEADER_OPTIONS)):
        return "{}"
    return Headers(options=options, version=version).dump()


def _delay(options: JobOptions) -> tuple[float, datetime | None]:
    if isinstance(options.delay, datetime):
        return 0.0, options.delay
    return options.delay or 0.0, None


def _check_kind(job: Any) -> None:
    # Not by isinstance, for which pydantic's classes take longer than for the check of all fields.
    if Job not in type(job).__mro__:
        raise InvalidJob(f"dispatch takes a Job, not {_described(job)}")
    if not registry.is_registered(job.name):
        other = other_handler(type(job))
        hint = f": rename its method `{other}`" if other else ""
        raise InvalidJob(f"{job.name} has no method `handle`, so no worker could run it{hint}")


def _described(value: object) -> str:
    if isinstance(value, type) and issubclass(value, Job):
        return f"the class {value.__qualname__}: dispatch an instance of it"
    return f"a {type(value).__name__}"


def deserialize(name: str, payload: str, headers: str = "{}") -> Job:
    """The job that was stored as ``name``, ``payload`` and ``headers``.

    Raises:
        UnknownJob: no class is registered under ``name``.
        InvalidPayload: the payload is not JSON, or does not validate.
        NewerPayload: newer code than this has dispatched it.
    """
    return load_stored(registry.resolve(name), name, payload, headers)


def load_stored(kind: type[Job], name: str, payload: str, headers: str) -> Job:
    """The job of a row, whose payload is upgraded first where it is an older one.

    Raises:
        InvalidPayload: the payload is not JSON, does not validate, or cannot be upgraded.
        NewerPayload: newer code than this has dispatched it.
    """
    if kind.version is None and headers == "{}":
        return load(kind, name, payload)
    return load_version(kind, name, payload, Headers.load(headers).version)
