"""Jobs on their way in: the one INSERT that every dispatch ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from outbox.drivers.database.dialects import Dialect
from outbox.envelope import Envelope

ROWS_PER_INSERT = 1_000
# Less than half of the smallest max_allowed_packet in use (MariaDB's 16 MiB), because escaping can double what is sent.
# A server ends the connection over a packet that is larger, which looks as if it had gone away.
_BYTES_PER_STATEMENT = 7_000_000
_MICROSECONDS = 1_000_000

Statement = tuple[str, tuple[Any, ...]]
T = TypeVar("T")


def insert_statements(dialect: Dialect, envelopes: Sequence[Envelope]) -> Iterator[Statement]:
    """One INSERT per 1,000 jobs, or per 7 million bytes of payload, whichever comes first."""
    for chunk in packets(envelopes, _size):
        availabilities: list[str] = []
        parameters: list[Any] = []
        for job in chunk:
            parameters += (job.id.bytes, job.queue, job.name, job.priority, job.payload, job.headers)
            if job.available_at is not None:
                availabilities.append(dialect.p)
                parameters.append(dialect.moment(job.available_at))
            elif job.delay:
                availabilities.append(dialect.later(dialect.p))
                parameters.append(int(job.delay * _MICROSECONDS))
            else:
                availabilities.append(dialect.now)
        yield dialect.insert(availabilities), tuple(parameters)


def _size(envelope: Envelope) -> int:
    payload = envelope.payload
    return len(payload) if payload.isascii() else len(payload.encode())


def packets(rows: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """``rows`` in groups that one statement can carry, whose ``size`` in bytes is known."""
    start = total = 0
    for position, row in enumerate(rows):
        bytes_here = size(row)
        if position > start and (position - start >= ROWS_PER_INSERT or total + bytes_here > _BYTES_PER_STATEMENT):
            yield rows[start:position]
            start, total = position, 0
        total += bytes_here
    if start < len(rows):
        yield rows[start:]
