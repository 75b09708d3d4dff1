"""Messages that consumers have received: a row for each, written by the transaction of what the consumer does.

A transaction locks the slot of its message first, then the row, which is there by then. So a second consumer of the
message waits for the first, and no two wait in a circle. Rows go when their time is over: `prune` waits for no lock.
"""

from __future__ import annotations

from itertools import groupby
from secrets import token_bytes

from sqlalchemy import Column, Index, Table

from outbox.drivers.database.chunks import KEYS_PER_STATEMENT, chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan, running
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.tables import INNODB, ascii_text, binary, inbox_slots, metadata, timestamp
from outbox.errors import TablesMissing
from outbox.policies.inbox import MessageKey
from outbox.policies.unique import slot_of

messages = Table(
    "queue_inbox",
    metadata,
    Column("source", ascii_text(64), primary_key=True),
    Column("id_hash", binary(32), primary_key=True),
    # Made at random by the transaction that was first.
    Column("token", binary(), nullable=False),
    Column("received_at", timestamp(), nullable=False),
    Column("kept_until", timestamp(), nullable=False),
    Index("queue_inbox_kept_until", "kept_until"),
    **INNODB,
)
"""A row for each message. Only transactions that have locked the message's slot touch it, and `prune`."""


def take(dialect: Dialect, key: MessageKey, keep_for: float) -> Plan[bool]:
    """Receive a message in the application's own transaction; whether it was not received before.

    Raises:
        TablesMissing: the table of slots lacks its rows.
    """
    slots = yield dialect.lock_slots([slot_of(key.id_hash)], inbox_slots.name)
    if not list(slots):
        raise TablesMissing(
            f"{inbox_slots.name} lacks its rows, without which no message can be received: start a worker, which "
            "writes them, or call outbox.migrations.upgrade in a revision"
        )
    token = token_bytes(16)
    values, parameters = dialect.id_list([key.id_hash, token])
    # No SELECT before it: at REPEATABLE READ, InnoDB would lock a gap.
    yield (
        f"INSERT INTO queue_inbox (source, id_hash, token, received_at, kept_until) VALUES ({dialect.placeholder}, "
        f"{values}, {dialect.now}, {dialect.seconds_from_now(keep_for)}) "
        f"{dialect.update_existing('source, id_hash')} source = queue_inbox.source",
        (key.source, *parameters),
    )
    listed, parameters = dialect.id_list([key.id_hash])
    # Locked, because a snapshot may be older than the row.
    rows = yield (
        f"SELECT token FROM queue_inbox {dialect.primary_hint} WHERE source = {dialect.placeholder} "
        f"AND id_hash = {listed} {dialect.for_update}",
        (key.source, *parameters),
    )
    return any(bytes(found) == token for (found,) in rows)


class ReceivedMessages:
    """The messages of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(self) -> int:
        """Forget the messages whose time is over, but those that a transaction is receiving again at this moment."""
        removed = 0
        while keys := await self._database.read_plain(running(_over, self._database.dialect)):
            some = await self._database.write_plain(running(_remove, self._database.dialect, keys))
            removed += some
            if some < KEYS_PER_STATEMENT:
                break
        return removed


def _over(dialect: Dialect) -> Plan[list[MessageKey]]:
    rows = yield (
        f"SELECT source, id_hash FROM queue_inbox WHERE kept_until < {dialect.now} "
        f"ORDER BY kept_until LIMIT {KEYS_PER_STATEMENT}",
        (),
    )
    return sorted(MessageKey(str(source), bytes(id_hash)) for source, id_hash in rows)


def _remove(dialect: Dialect, keys: list[MessageKey]) -> Plan[int]:
    removed = 0
    for source, group in groupby(keys, key=lambda key: key.source):
        locked: list[bytes] = []
        for some in chunked([key.id_hash for key in group]):
            listed, parameters = dialect.id_list(some)
            rows = yield (
                f"SELECT id_hash FROM queue_inbox {dialect.primary_hint} WHERE source = {dialect.placeholder} "
                f"AND id_hash IN ({listed}) AND kept_until < {dialect.now} {dialect.skip_locked}",
                (source, *parameters),
            )
            locked += [bytes(id_hash) for (id_hash,) in rows]
        for some in chunked(locked):
            listed, parameters = dialect.id_list(some)
            yield (
                f"DELETE FROM queue_inbox WHERE source = {dialect.placeholder} AND id_hash IN ({listed})",
                (source, *parameters),
            )
            removed += len(some)
    return removed
