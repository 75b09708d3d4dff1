"""Rows of jobs, as policies find and lock them."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect


def lock_unheld(dialect: Dialect, ids: Sequence[bytes]) -> Plan[list[bytes]]:
    """Lock those of these jobs that claims find now and that nothing else has locked."""
    locked: list[bytes] = []
    for some in chunked(sorted(ids)):
        listed, parameters = dialect.id_list(some)
        rows = yield (
            f"SELECT id FROM queue_jobs {dialect.primary_hint} WHERE id IN ({listed}) "
            f"AND available_at <= {dialect.now} AND reserved_until IS NULL ORDER BY id {dialect.skip_locked}",
            parameters,
        )
        locked += [bytes(job_id) for (job_id,) in rows]
    return locked


def lock_jobs(dialect: Dialect, ids: Sequence[bytes]) -> Plan[dict[bytes, str]]:
    """Lock those of these jobs that nothing else has locked; their queues."""
    locked: dict[bytes, str] = {}
    for some in chunked(sorted(ids)):
        listed, parameters = dialect.id_list(some)
        rows = yield (
            f"SELECT id, queue FROM queue_jobs {dialect.primary_hint} WHERE id IN ({listed}) "
            f"ORDER BY id {dialect.skip_locked}",
            parameters,
        )
        locked.update((bytes(job_id), queue) for job_id, queue in rows)
    return locked


def present(dialect: Dialect, ids: Sequence[bytes]) -> Plan[set[bytes]]:
    """Those of these jobs that are live. No lock."""
    found: set[bytes] = set()
    for some in chunked(sorted(ids)):
        listed, parameters = dialect.id_list(some)
        rows = yield f"SELECT id FROM queue_jobs {dialect.primary_hint} WHERE id IN ({listed})", parameters
        found.update(bytes(job_id) for (job_id,) in rows)
    return found
