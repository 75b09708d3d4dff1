"""The INSERT of jobs, in portions that one statement can carry."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from outbox.drivers.database.chunks import BYTES_PER_STATEMENT, packets
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.policies import registry
from outbox.envelope import Envelope, stored_bytes

_BYTES_PER_DOCUMENT = BYTES_PER_STATEMENT // 2
"""`Dialect.insert_many` can double what is sent once more."""


def insert_statements(dialect: Dialect, envelopes: Sequence[Envelope]) -> Plan[None]:
    """One INSERT per 1,000 jobs, or per 7 million bytes, whichever comes first, for connections of an application."""
    for chunk in packets(envelopes, stored_bytes):
        yield dialect.insert(chunk)
    yield from registry.dispatched(dialect, envelopes)


def own_insert_statements(dialect: Dialect, envelopes: Sequence[Envelope]) -> Plan[None]:
    """One INSERT per 1,000 jobs, or per 3.5 million bytes, for connections of outbox's own."""
    yield from insert_rows(dialect, envelopes)
    yield from registry.dispatched(dialect, envelopes)


def insert_rows(dialect: Dialect, envelopes: Sequence[Envelope]) -> Plan[None]:
    """`own_insert_statements` for failed jobs that become live again: their policies were asked already."""
    for chunk in packets(envelopes, stored_bytes, _BYTES_PER_DOCUMENT):
        yield dialect.insert_many(chunk)


def only_insert_statement(dialect: Dialect, envelopes: Sequence[Envelope]) -> Statement | None:
    """The statement of `own_insert_statements` if there is exactly one, else None."""
    chunks = list(islice(packets(envelopes, stored_bytes, _BYTES_PER_DOCUMENT), 2))
    return dialect.insert_many(chunks[0]) if len(chunks) == 1 else None
