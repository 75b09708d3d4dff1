"""Jobs that a claim has found although their class or their key is paused: they are parked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from outbox.drivers.database.claim_scan.base import Candidates, QueueRows
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.jobs.unreadable import flaw
from outbox.drivers.database.pauses import breaker_statements, statements
from outbox.drivers.database.pauses.tables import StoredKind
from outbox.drivers.database.tables import PARKED
from outbox.drivers.pauses import names_of_keys
from outbox.options import RELAY_PREFIX
from outbox.policies.base import Policies
from outbox.registry import names_of

_SWEPT = 1_000
"""Due jobs of a queue of which one claim parks those that are paused, where many of what it has found were."""


class _Stored(NamedTuple):
    id: bytes
    probe: bytes | None
    until: Any
    """As `available_at` has it."""
    ended: bool
    """Its time is up, and it is that of a circuit breaker: the next job is the probe."""


@dataclass(slots=True)
class _Pauses:
    """The pauses of job classes and keys that have not ended, and the jobs that they keep."""

    jobs: dict[str, _Stored] = field(default_factory=dict)
    keys: dict[str, _Stored] = field(default_factory=dict)
    found: dict[bytes, list[bytes]] = field(default_factory=dict)
    """Ids of jobs, by the pause."""

    def pause_of(self, queue: str, row: Any) -> _Stored | None:
        """Of a row with an id, a name, policies and headers. A row on its way to another connection has no class
        here."""
        mine = None if queue.startswith(RELAY_PREFIX) or not self.jobs else self._of_class(row.name)
        if mine is None and self.keys and type(row.policies) is int and row.policies & int(Policies.KEY):
            mine = next((self.keys[name] for name in names_of_keys(row.headers) if name in self.keys), None)
        return None if mine is None or mine.probe == row.id else mine

    def _of_class(self, name: str) -> _Stored | None:
        """A class that was renamed has jobs under its old names, and may be paused under any of them."""
        return next((self.jobs[each] for each in names_of(name) if each in self.jobs), None)


def unpaused(dialect: Dialect, found: Candidates) -> Plan[Sequence[QueueRows]]:
    """What a claim has found, without paused jobs, which it parks. It holds the rows of their pauses until its COMMIT,
    so that no job is parked under a pause that has ended."""
    pauses = yield from _read(dialect, None)
    paused = {pause.id: pause for _, _, pause in _paused_rows(pauses, found.queues)}
    if not paused:
        return found.queues
    if any(pause.ended for pause in paused.values()):
        yield from _let_probes_run(dialect, found, sorted(paused))
    pauses = yield from _read(dialect, sorted(paused))
    kept: dict[str, set[Any]] = {}
    for queue, row, pause in _paused_rows(pauses, found.queues):
        pauses.found.setdefault(pause.id, []).append(row.id)
        kept.setdefault(queue, set()).add(row.id)
    for queue, rows, _ in found.queues:
        if 2 * len(kept.get(queue, ())) >= len(rows) > 0:
            yield from _sweep(dialect, pauses, queue)
    until = {each.id: each.until for each in (*pauses.jobs.values(), *pauses.keys.values())}
    for pause_id, ids in sorted(pauses.found.items()):
        yield from statements.park(dialect, pause_id, sorted(set(ids)), until[pause_id])
    return [
        QueueRows(queue, [row for row in rows if row.id not in kept.get(queue, ())], emptied)
        for queue, rows, emptied in found.queues
    ]


def _let_probes_run(dialect: Dialect, found: Candidates, paused: Sequence[bytes]) -> Plan[None]:
    """The first job of each circuit breaker whose time is up."""
    pauses = yield from _read(dialect, paused, dialect.for_update)
    probes: dict[bytes, bytes] = {}
    for _, row, pause in _paused_rows(pauses, found.queues):
        if pause.ended:
            probes.setdefault(pause.id, row.id)
    for pause_id, job_id in probes.items():
        yield breaker_statements.let_run(dialect, pause_id, job_id)


def _paused_rows(pauses: _Pauses, queues: Sequence[QueueRows]) -> Iterable[tuple[str, Any, _Stored]]:
    for queue, rows, _ in queues:
        for row in rows:
            if flaw(row) is None and (pause := pauses.pause_of(queue, row)) is not None:
                yield queue, row, pause


def _read(dialect: Dialect, ids: Sequence[bytes] | None, lock: str | None = None) -> Plan[_Pauses]:
    """The pauses that have not ended; of some, locked against their end."""
    where, locked = statements.live(dialect, statements.JOB_PAUSES), ""
    parameters: tuple[Any, ...] = ()
    if ids is not None:
        listed, parameters = dialect.id_list(ids)
        where, locked = f"id IN ({listed}) AND {where}", dialect.for_share if lock is None else lock
    ended = f"CASE WHEN paused_until <= {dialect.now} THEN 1 ELSE 0 END"
    rows = yield (
        f"SELECT id, kind, name, paused_until, probe, {ended} FROM queue_job_pauses WHERE {where} {locked}",
        parameters,
    )
    pauses = _Pauses()
    kinds: Mapping[int, dict[str, _Stored]] = {StoredKind.JOB: pauses.jobs, StoredKind.KEY: pauses.keys}
    for pause_id, kind, name, until, probe, is_over in rows:
        # Another program may have written other types into SQLite.
        if kind not in kinds or type(pause_id) is not bytes or not isinstance(probe, bytes | None):
            continue
        moment = PARKED if until is None else dialect.timestamp(dialect.parse_timestamp(until))
        kinds[kind][name] = _Stored(pause_id, probe, moment, bool(is_over))
    return pauses


class _Due(NamedTuple):
    id: bytes
    name: str
    policies: int | None
    headers: str | None


def _sweep(dialect: Dialect, pauses: _Pauses, queue: str) -> Plan[None]:
    """Find also those paused jobs that later claims would find: jobs that are not paused may be behind them."""
    due, parameters = dialect.due()
    rows = yield (
        "SELECT id, name, policies, CASE WHEN policies IS NULL THEN NULL ELSE headers END "
        f"FROM queue_jobs {dialect.claim_hint} WHERE queue = {dialect.placeholder} AND {due} "
        f"AND (reserved_until IS NULL OR reserved_until <= {dialect.now}) "
        f"ORDER BY priority, available_at LIMIT {_SWEPT} {dialect.skip_locked}",
        (queue, *parameters),
    )
    for row in map(_Due._make, rows):
        if type(row.id) is bytes and (pause := pauses.pause_of(queue, row)) is not None:
            pauses.found.setdefault(pause.id, []).append(row.id)
