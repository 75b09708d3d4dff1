"""Jobs on their way in: the one INSERT that every dispatch ends in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from outbox.drivers.database.dialects import Dialect
from outbox.envelope import Envelope

ROWS_PER_INSERT = 1_000
# Half of the smallest max_allowed_packet in use (MariaDB's 16 MiB), because escaping can double what is sent.
_CHARACTERS_PER_INSERT = 7_000_000
_MICROSECONDS = 1_000_000

Statement = tuple[str, tuple[Any, ...]]


def insert_statements(dialect: Dialect, envelopes: Sequence[Envelope]) -> Iterator[Statement]:
    """One INSERT per 1,000 jobs, or per 7 million characters of payload, whichever comes first."""
    for chunk in _chunks(envelopes):
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


def _chunks(envelopes: Sequence[Envelope]) -> Iterator[Sequence[Envelope]]:
    start = characters = 0
    for position, job in enumerate(envelopes):
        size = len(job.payload)
        if position > start and (position - start >= ROWS_PER_INSERT or characters + size > _CHARACTERS_PER_INSERT):
            yield envelopes[start:position]
            start, characters = position, 0
        characters += size
    if start < len(envelopes):
        yield envelopes[start:]
