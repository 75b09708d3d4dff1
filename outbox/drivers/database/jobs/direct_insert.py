"""Insert over outbox's own connections: a dispatch without a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outbox.drivers.audit import current_act
from outbox.drivers.database.audit import recorded
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.jobs.insert import only_insert_statement, own_insert_statements
from outbox.drivers.database.policies.unique_dispatch import reserve
from outbox.envelope import Envelope
from outbox.ids import JobId


async def insert_unique(database: Database, envelopes: Sequence[Envelope]) -> Mapping[JobId, JobId]:
    """Insert all ``envelopes`` but those that meet a job of their key, in one transaction. Returns those, each with the
    id of the job that it met.

    Raises:
        DuplicateJob: one of them must not meet another. Nothing was inserted.
        BackendUnavailable, TablesMissing, ConfigurationError, RepeatedAction: as `insert`.
    """

    def plan() -> Plan[Mapping[JobId, JobId]]:
        met = yield from reserve(database.dialect, envelopes)
        yield from own_insert_statements(database.dialect, [each for each in envelopes if each.id not in met])
        return met

    return await database.write_plain(
        running(lambda: recorded(database.dialect, plan(), lambda met: len(envelopes) - len(met)))
    )


async def insert(database: Database, envelopes: Sequence[Envelope], *, directly: bool) -> None:
    """Insert all ``envelopes``, or none; ``directly`` in the fewest round trips.

    What fits into one statement is sent to a server in autocommit: one round trip. On SQLite any number of statements
    is one hop to the connection's thread. Jobs with policies take a transaction. An INSERT is harmless when repeated,
    because it leaves existing ids alone.

    Raises:
        BackendUnavailable: the database does not answer, or refused all retries.
        TablesMissing, ConfigurationError: as their names say.
        RepeatedAction: it is an action of an operator, and its form was sent before.
    """
    if not envelopes:
        return
    if current_act() is not None:
        dialect, count = database.dialect, len(envelopes)
        await database.write_plain(
            running(lambda: recorded(dialect, own_insert_statements(dialect, envelopes), lambda _: count))
        )
        return
    # What policies write depends on what they read.
    directly = directly and not any(envelope.policies is not None for envelope in envelopes)
    if directly and len(envelopes) == 1:
        await database.write_often(database.dialect.insert(envelopes))
    elif directly and database.runs_in_one_hop:
        await database.write_in_one_hop(lambda: own_insert_statements(database.dialect, envelopes))
    elif directly and (statement := only_insert_statement(database.dialect, envelopes)):
        await database.write_directly(lambda connection: connection.exec_driver_sql(*statement))
    else:
        await database.write_plain(running(own_insert_statements, database.dialect, envelopes))
