"""Jobs as bytes, as the scripts take and return them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

from outbox.envelope import Envelope, stored_bytes
from outbox.ids import ID_BYTES, JobId

_MICROSECONDS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RECORD = struct.Struct(">16sHBBQI")
_LINES_BEFORE_PAYLOAD = 3
_JOBS_PER_PART = 1_000
_BYTES_PER_PART = 8_000_000

T = TypeVar("T")


class Body(NamedTuple):
    """The hash field of a job. Reading it never fails, so that a bad job is kept and stops no worker."""

    created_at: str
    name: str
    headers: str
    payload: str
    relayed: bool = False
    """Whether a row of a database waits for the end of the job."""


def microseconds(seconds: float) -> int:
    return int(seconds * _MICROSECONDS)


def moment(score: str | bytes | float) -> datetime:
    """A time of the server as an aware datetime; 1970 if it is not a time."""
    try:
        return _EPOCH + timedelta(microseconds=int(float(score)))
    except (ValueError, OverflowError):
        return _EPOCH


def number(digits_of_number: bytes, otherwise: int = 0) -> int:
    """``otherwise`` if it is not a number."""
    try:
        return int(digits_of_number)
    except ValueError:
        return otherwise


def as_job_id(member: bytes) -> JobId | None:
    """None if it is not an id: no command could name the job."""
    return JobId(bytes=member) if len(member) == ID_BYTES else None


def score(when: datetime) -> int:
    return max(0, (when - _EPOCH) // timedelta(microseconds=1))


def text(raw: bytes) -> str:
    """Bytes of another program may not be UTF-8. Escaped, they can be shown, and they fail as a payload."""
    return raw.decode("utf-8", "backslashreplace")


def pack_body(envelope: Envelope) -> bytes:
    # A line break in JSON is a space; in the payload, which comes last, it stays.
    headers = envelope.headers.replace("\n", " ")
    return f"{envelope.name}\n{headers}\n{envelope.payload}".encode()


def unpack_body(raw: bytes) -> Body:
    parts = text(raw).split("\n", _LINES_BEFORE_PAYLOAD)
    created_at, name, headers, payload = parts if len(parts) > _LINES_BEFORE_PAYLOAD else (*parts, "", "", "")[:4]
    return Body(created_at, name, headers, payload, relayed=created_at.startswith("+"))


class Packed(NamedTuple):
    """Jobs in the form of `unpack_jobs` in `common/base.lua`."""

    records: bytes
    bodies: bytes


def pack_jobs(jobs: Sequence[tuple[Envelope, int, bytes]]) -> Packed:
    """``jobs`` have the number of their queue among the keys, and their body."""
    records = bytearray()
    for envelope, queue, body in jobs:
        absolute = envelope.available_at is not None
        when = microseconds(envelope.delay) if envelope.available_at is None else score(envelope.available_at)
        records += _RECORD.pack(envelope.id.bytes, queue, envelope.priority, absolute, when, len(body))
    return Packed(bytes(records), b"".join(body for _, _, body in jobs))


def parts(jobs: Sequence[tuple[Envelope, int, bytes]]) -> Iterator[Packed]:
    """Jobs as several strings: a string of Redis holds at most 512 MB, or less by configuration."""
    for start in range(0, len(jobs), _JOBS_PER_PART):
        for part in _groups(jobs[start : start + _JOBS_PER_PART], lambda job: len(job[2]), _BYTES_PER_PART):
            yield pack_jobs(part)


def batches(envelopes: Sequence[Envelope], limit: int) -> Iterator[Sequence[Envelope]]:
    """``envelopes`` in batches of at most ``limit`` bytes, or of one job. A server closes the
    connection on a command of more than 1 GB."""
    return _groups(envelopes, stored_bytes, limit)


def _groups(jobs: Sequence[T], size: Callable[[T], int], limit: int) -> Iterator[Sequence[T]]:
    start = total = 0
    for position, job in enumerate(jobs):
        bytes_here = size(job)
        if position > start and total + bytes_here > limit:
            yield jobs[start:position]
            start, total = position, 0
        total += bytes_here
    if start < len(jobs):
        yield jobs[start:]
