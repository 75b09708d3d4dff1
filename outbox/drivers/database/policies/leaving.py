"""Jobs with policies that leave: read from rows, effects and headers."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import registry
from outbox.drivers.database.policies.base import Leaving, Returning
from outbox.drivers.values import PolicyNews
from outbox.envelope import NO_HEADERS, Headers
from outbox.errors import InvalidPayload
from outbox.ids import JobId
from outbox.settlement import Outcome


def leaving(
    job_id: JobId,
    policies: int,
    headers: str,
    outcome: Outcome,
    delay: float = 0.0,
    in_session: bool = False,
) -> Leaving:
    return Leaving(job_id, policies, headers_of(headers), outcome, delay, in_session)


def headers_of(text: object) -> Headers:
    """Headers that cannot be read are none: the job leaves all the same, and upkeep finds what it has left."""
    try:
        return Headers.load(text) if isinstance(text, str) else NO_HEADERS
    except InvalidPayload:
        return NO_HEADERS


def gated_rows(dialect: Dialect, table: str, ids: Sequence[bytes]) -> Plan[list[Returning]]:
    """Those of these rows of ``table`` that have policies, in the order of the key."""
    found: list[Returning] = []
    for keys in chunked(sorted(ids)):
        rows = yield dialect.gated(table, len(keys)), tuple(keys)
        found += [
            Returning(JobId(bytes=bytes(key)), policies, headers_of(headers))
            for key, policies, headers in rows
            if isinstance(policies, int)
        ]
    return found


def removed(dialect: Dialect, ids: Sequence[bytes], outcome: Outcome, table: str = "queue_jobs") -> Plan[PolicyNews]:
    """Tell policies that these jobs, whose rows are locked and not yet deleted, are about to be removed."""
    rows = yield from gated_rows(dialect, table, ids)
    if not rows:
        return PolicyNews()
    return (yield from registry.settled(dialect, [Leaving(*row, outcome) for row in rows]))
