"""The ends of attempts, each written in one transaction with everything that follows from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

from outbox.drivers.base import Settled
from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.jobs.insert import own_insert_statements, packets
from outbox.drivers.database.jobs.lease import holders
from outbox.settlement import Failure, Outcome, Settlement

_MICROSECONDS = 1_000_000
_TOKENS_AT_ONCE = 2
_REMOVED = {Outcome.COMPLETED, Outcome.CANCELLED}
_LEAVES = _REMOVED | {Outcome.FAILED}
_PUT_BACK = {Outcome.RETRIED, Outcome.RELEASED, Outcome.SNOOZED}


async def settle(database: Database, connection_name: str, settlements: Sequence[Settlement]) -> Settled:
    accepted: list[Settlement] = []
    stale: list[Settlement] = []
    for batch in chunked(settlements):
        settling = _Settling(database, connection_name, batch)
        settled = await database.write_plain(settling.write, confirm=settling.recover, on_unconfirmed=settling.remember)
        database.unconfirmed.settled(batch)
        accepted += settled.accepted
        stale += settled.stale
    return Settled(tuple(accepted), tuple(stale))


class _Settling:
    """One batch, one transaction. The usual one, completions under one token, is a single DELETE; any other first locks
    its rows."""

    def __init__(self, database: Database, connection_name: str, settlements: Sequence[Settlement]) -> None:
        self._database = database
        self._dialect = database.dialect
        self._connection_name = connection_name
        self._settlements = tuple(settlements)
        self._decided = Settled((), ())

    async def write(self, connection: SqlConnection) -> Settled:
        self._decided = await self._delete_at_once(connection) or await self._lock_and_write(connection)
        return self._decided

    def remember(self) -> None:
        """Nobody knows whether the last try was committed."""
        self._database.unconfirmed.ends = frozenset(settlement.fence for settlement in self._decided.accepted)

    async def recover(self, connection: SqlConnection) -> Settled | None:
        """What became of a commit whose answer was lost: all of it or nothing, so one row still held says nothing
        was."""
        tokens = {settlement.fence.job_id.bytes: settlement.fence.token for settlement in self._decided.accepted}
        held = await holders(self._database, connection, list(tokens), lock=False)
        return None if any(held.get(job_id) == token for job_id, token in tokens.items()) else self._decided

    async def _delete_at_once(self, connection: SqlConnection) -> Settled | None:
        """Without looking first, a statement for each of one or two tokens: a lock and a look are two statements
        however many there are. None if that is not all there is to do, or would lock rows in another order than that of
        their keys."""
        held: dict[bytes, list[bytes]] = {}
        for settlement in sorted(self._settlements, key=lambda settlement: settlement.fence.job_id.bytes):
            if settlement.outcome not in _REMOVED or settlement.follow_ups:
                return None
            held.setdefault(settlement.fence.token, []).append(settlement.fence.job_id.bytes)
        if len(held) > _TOKENS_AT_ONCE or any(ids[-1] > after[0] for ids, after in pairwise(held.values())):
            return None
        for token, ids in held.items():
            listed, parameters = self._dialect.id_list(ids)
            result = await connection.exec_driver_sql(self._dialect.remove_held(listed), (*parameters, token))
            if result.rowcount != len(ids):
                # Some were not ours any more. Which ones can be told only from the rows, so begin again by locking
                # them.
                await connection.rollback()
                return None
        return Settled(self._settlements, ())

    async def _lock_and_write(self, connection: SqlConnection) -> Settled:
        ids = [settlement.fence.job_id.bytes for settlement in self._settlements]
        held = await holders(self._database, connection, ids, lock=True)
        accepted: list[Settlement] = []
        stale: list[Settlement] = []
        for settlement in self._settlements:
            current = held.get(settlement.fence.job_id.bytes)
            (accepted if current == settlement.fence.token else stale).append(settlement)
        written = await self._written_before(connection, accepted, stale, held)
        await self._write_failed(connection, [s for s in accepted if s.outcome is Outcome.FAILED])
        await self._put_back(connection, [s for s in accepted if s.outcome in _PUT_BACK])
        await self._defer(connection, [s for s in accepted if s.outcome is Outcome.DEFERRED])
        await self._remove(connection, [s for s in accepted if s.outcome in _LEAVES])
        follow_ups = [envelope for settlement in accepted for envelope in settlement.follow_ups]
        for statement, parameters in own_insert_statements(self._dialect, follow_ups):
            await connection.exec_driver_sql(statement, parameters)
        return Settled((*accepted, *written), tuple(settlement for settlement in stale if settlement not in written))

    async def _written_before(
        self,
        connection: SqlConnection,
        accepted: Sequence[Settlement],
        stale: Sequence[Settlement],
        held: dict[bytes, bytes | None],
    ) -> list[Settlement]:
        """Those that an earlier call may have written before it gave up, and that have left what they would leave. Had
        somebody else ended the job in the same way meanwhile, calling them accepted would change nothing in the
        store."""
        ends = self._database.unconfirmed.ends
        doubtful = [settlement for settlement in stale if settlement.fence in ends]
        # All of it was committed or nothing.
        if not doubtful or any(settlement.fence in ends for settlement in accepted):
            return []
        gone = [key for settlement in doubtful if (key := settlement.fence.job_id.bytes) not in held]
        failures = await self._failures(connection, gone)
        written = []
        for settlement in doubtful:
            key = settlement.fence.job_id.bytes
            if settlement.outcome is Outcome.DEFERRED:
                # It is held by the same token, or by whoever took it next.
                left = False
            elif settlement.outcome in _PUT_BACK:
                left = key in held and held[key] is None
            elif settlement.outcome is Outcome.FAILED:
                left = key not in held and failures.get(key) == dump_failure(settlement.failure)
            else:
                left = key not in held and key not in failures
            if left:
                written.append(settlement)
        return written

    async def _failures(self, connection: SqlConnection, ids: Sequence[bytes]) -> dict[bytes, str]:
        if not ids:
            return {}
        rows = await connection.exec_driver_sql(self._dialect.failures(len(ids)), tuple(ids))
        # Servers write JSON in a form of their own.
        return {bytes(job_id): dump_failure(load_failure(exception)) for job_id, exception in rows}

    async def _write_failed(self, connection: SqlConnection, failed: Sequence[Settlement]) -> None:
        described = [(settlement.fence.job_id.bytes, dump_failure(settlement.failure)) for settlement in failed]
        for chunk in packets(described, lambda pair: len(pair[1])):
            parameters = [value for pair in chunk for value in pair]
            ids = sorted(job_id for job_id, _ in chunk)
            statement = self._dialect.copy_to_failed(len(chunk))
            await connection.exec_driver_sql(statement, (self._connection_name, *parameters, *ids))

    async def _put_back(self, connection: SqlConnection, put_back: Sequence[Settlement]) -> None:
        if not put_back:
            return
        parameters: list[object] = []
        for settlement in put_back:
            parameters += (settlement.fence.job_id.bytes, int(settlement.delay * _MICROSECONDS))
        for settlement in put_back:
            parameters += (settlement.fence.job_id.bytes, int(settlement.outcome is Outcome.SNOOZED))
        errors = [(s.fence.job_id.bytes, s.failure.summary) for s in put_back if s.failure is not None]
        parameters += [value for pair in errors for value in pair]
        parameters += [job_id for job_id, _ in errors]
        ids = sorted(settlement.fence.job_id.bytes for settlement in put_back)
        await connection.exec_driver_sql(self._dialect.put_back(len(put_back), len(errors)), (*parameters, *ids))

    async def _defer(self, connection: SqlConnection, deferred: Sequence[Settlement]) -> None:
        if not deferred:
            return
        delays = [value for s in deferred for value in (s.fence.job_id.bytes, int(s.delay * _MICROSECONDS))]
        ids = sorted(settlement.fence.job_id.bytes for settlement in deferred)
        await connection.exec_driver_sql(self._dialect.defer(len(ids)), (*delays, *delays, *ids))

    async def _remove(self, connection: SqlConnection, removed: Sequence[Settlement]) -> None:
        if not removed:
            return
        ids = sorted(settlement.fence.job_id.bytes for settlement in removed)
        await connection.exec_driver_sql(self._dialect.remove(len(ids)), tuple(ids))


def dump_failure(failure: Failure | None) -> str:
    described = failure or Failure("unknown", "", "")
    return json.dumps({"type": described.type, "message": described.message, "traceback": described.traceback})


def load_failure(text: str | dict[str, str]) -> Failure:
    values = json.loads(text) if isinstance(text, str) else text
    return Failure(values["type"], values["message"], values["traceback"])
