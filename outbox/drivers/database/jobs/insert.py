"""The INSERT of jobs, in portions that one statement can carry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.policies import registry
from outbox.envelope import Envelope

ROWS_PER_INSERT = 1_000
# Less than half of the smallest max_allowed_packet in use (MariaDB's 16 MiB), because escaping can double what is sent.
# A server ends the connection over a packet that is larger, which looks as if it had gone away.
_BYTES_PER_STATEMENT = 7_000_000
# `Dialect.insert_many` can double it again.
_BYTES_PER_DOCUMENT = 3_500_000

T = TypeVar("T")


def insert_statements(dialect: Dialect, envelopes: Sequence[Envelope]) -> Plan[None]:
    """One INSERT per 1,000 jobs, or per 7 million bytes, whichever comes first, for connections of an application."""
    for chunk in packets(envelopes, _size):
        yield dialect.insert(chunk)
    yield from registry.dispatched(dialect, envelopes)


def own_insert_statements(dialect: Dialect, envelopes: Sequence[Envelope]) -> Plan[None]:
    """One INSERT per 1,000 jobs, or per 3.5 million bytes, for connections of outbox's own."""
    for chunk in packets(envelopes, _size, _BYTES_PER_DOCUMENT):
        yield dialect.insert_many(chunk)
    yield from registry.dispatched(dialect, envelopes)


def only_insert_statement(dialect: Dialect, envelopes: Sequence[Envelope]) -> Statement | None:
    """The statement of `own_insert_statements` if there is exactly one, else None."""
    chunks = list(islice(packets(envelopes, _size, _BYTES_PER_DOCUMENT), 2))
    return dialect.insert_many(chunks[0]) if len(chunks) == 1 else None


def _size(envelope: Envelope) -> int:
    payload = envelope.payload
    return len(envelope.headers) + (len(payload) if payload.isascii() else len(payload.encode()))


def packets(rows: Sequence[T], size: Callable[[T], int], limit: int = _BYTES_PER_STATEMENT) -> Iterator[Sequence[T]]:
    """``rows`` in groups that one statement can carry, whose ``size`` in bytes is known."""
    if len(rows) == 1:
        yield rows
        return
    start = total = 0
    for position, row in enumerate(rows):
        bytes_here = size(row)
        if position > start and (position - start >= ROWS_PER_INSERT or total + bytes_here > limit):
            yield rows[start:position]
            start, total = position, 0
        total += bytes_here
    if start < len(rows):
        yield rows[start:]
