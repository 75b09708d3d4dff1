"""What rates do with a job, for operators, and what workers repair."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import rate_statements as statements
from outbox.drivers.database.policies.base import Leaving
from outbox.drivers.database.policies.jobs_ahead import ahead
from outbox.drivers.database.policies.rate_release import release
from outbox.drivers.database.policies.rate_statements import LET_IN, PARKED
from outbox.drivers.database.tables import PARKED as PARKED_UNTIL
from outbox.drivers.values import PolicyNews
from outbox.policies.rate import SECOND

_REPAIRED_AT_ONCE = 500
_GIVEN = (
    f"(w.state = {LET_IN} AND EXISTS (SELECT 1 FROM queue_jobs AS p WHERE p.id = w.job_id "
    f"AND p.available_at = '{PARKED_UNTIL}'))"
)
"""The limit has given a job its time, and a key has parked it. A claim that could not lock the limit has left that."""
_IDLE = 86_400 * SECOND
"""Nanoseconds after which the state of a limit that nothing waits for says no more than a missing one."""


def lines(dialect: Dialect, job: Leaving) -> Plan[Sequence[str]]:
    header = job.headers.rates
    if header is None:
        return ()
    waits = yield from statements.waits_of(dialect, [job.job_id.bytes])
    changed = yield from statements.terms_set(dialect, [terms.name for terms in header.limits])
    facts = yield from statements.facts_of(dialect, header.by_id())
    found: list[str] = []
    for rate, declared in header.by_id().items():
        terms = changed.get(declared.name, declared)
        name = terms.name if header.key is None else f"{terms.name}, key `{header.key}`"
        wait = waits.get(job.job_id.bytes)
        if wait is not None and wait.rate == rate:
            before = yield from _before(dialect, rate, wait.seq)
            due = yield from _next(dialect, rate)
            found.append(f"parked: rate {name} ({terms.rate}), next at {due}, {before}")
        else:
            left = terms.limit.left(facts[rate].state, facts[rate].now)
            found.append(f"rate {name} ({terms.rate}), {left:,} left")
    return found


def _before(dialect: Dialect, rate: bytes, sequence: int) -> Plan[str]:
    """How many jobs wait for the limit before the one with this sequence."""
    listed, parameters = dialect.id_list([rate])
    return (
        yield from ahead(
            f"queue_rate_waits {dialect.wait_hint} WHERE rate_id = {listed} "
            f"AND state IN ({PARKED}, {LET_IN}) AND seq < {sequence}",
            parameters,
        )
    )


def _next(dialect: Dialect, rate: bytes) -> Plan[str]:
    listed, parameters = dialect.id_list([rate])
    rows = yield (
        "SELECT MIN(j.available_at) FROM queue_rate_waits AS w JOIN queue_jobs AS j ON j.id = w.job_id "
        f"WHERE w.rate_id = {listed} AND w.state = {LET_IN}",
        parameters,
    )
    moment = next((value for (value,) in rows), None)
    return "an unknown time" if moment is None else f"{dialect.parse_timestamp(moment):%H:%M:%S} UTC"


async def repair(database: Database) -> PolicyNews:
    """Forget jobs that applications have removed, and states that are long past. Where no job of a limit has a time,
    give one to the first."""
    dialect = database.dialect

    async def look(connection: SqlConnection) -> list[bytes]:
        rows = await connection.exec_driver_sql(
            f"SELECT DISTINCT w.rate_id FROM queue_rate_waits AS w WHERE "
            f"NOT EXISTS (SELECT 1 FROM queue_jobs AS j WHERE j.id = w.job_id) OR {_GIVEN} "
            f"OR (w.state = {PARKED} AND NOT EXISTS (SELECT 1 FROM queue_rate_waits AS o "
            "JOIN queue_jobs AS k ON k.id = o.job_id "
            f"WHERE o.rate_id = w.rate_id AND o.state = {LET_IN})) LIMIT {_REPAIRED_AT_ONCE}",
            (),
        )
        return [bytes(rate) for (rate,) in rows]

    rates = await database.read_plain(look)
    if rates:
        queues = await database.write_plain(running(_repair, dialect, rates))
        return PolicyNews(queues)
    await _forget_idle(database)
    return PolicyNews()


def _repair(dialect: Dialect, rates: Sequence[bytes]) -> Plan[frozenset[str]]:
    yield from statements.lock_slots(dialect, rates, wait=True)
    for rate in rates:
        listed, parameters = dialect.id_list([rate])
        rows = yield (
            f"SELECT w.seq FROM queue_rate_waits AS w WHERE w.rate_id = {listed} "
            f"AND (NOT EXISTS (SELECT 1 FROM queue_jobs AS j WHERE j.id = w.job_id) OR {_GIVEN}) LIMIT 1000",
            parameters,
        )
        yield from statements.delete_waits([seq for (seq,) in rows])
    facts = yield from statements.facts_of(dialect, rates)
    return (yield from release(dialect, facts)).queues


async def _forget_idle(database: Database) -> None:
    dialect = database.dialect
    long_past = f"{dialect.microseconds(dialect.now)} * 1000 - {_IDLE}"

    async def look(connection: SqlConnection) -> list[bytes]:
        rows = await connection.exec_driver_sql(
            f"SELECT id FROM queue_rates WHERE arrival < {long_past} LIMIT {_REPAIRED_AT_ONCE}", ()
        )
        return [bytes(rate) for (rate,) in rows]

    rates = await database.read_plain(look)
    if rates:
        await database.write_plain(running(_forget, dialect, rates, long_past))


def _forget(dialect: Dialect, rates: Sequence[bytes], long_past: str) -> Plan[None]:
    yield from statements.lock_slots(dialect, rates, wait=True)
    listed, parameters = dialect.id_list(rates)
    yield (
        f"DELETE FROM queue_rates WHERE id IN ({listed}) AND arrival < {long_past} "
        "AND NOT EXISTS (SELECT 1 FROM queue_rate_waits AS w WHERE w.rate_id = queue_rates.id)",
        parameters,
    )
