"""Which of the jobs that a claim has found may run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.claim_scan.base import Candidates, QueueRows
from outbox.drivers.database.connection.plans import Plan, run
from outbox.drivers.database.connection.raw_connection import SqlConnection
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.dialects.failed_job_statements import ANY_PAUSE
from outbox.drivers.database.dialects.syntax import MICROSECONDS
from outbox.drivers.database.jobs.unreadable import Unreadable, flaw
from outbox.drivers.database.pauses.admission import unpaused
from outbox.drivers.database.policies import registry
from outbox.drivers.database.policies.base import Candidate, Leave, Leaving, Park, Run, Skip
from outbox.drivers.database.policies.leaving import gated_rows
from outbox.drivers.values import PolicyNews
from outbox.envelope import Headers
from outbox.errors import InvalidPayload
from outbox.events import JobSkipped
from outbox.ids import JobId, stored_job_id
from outbox.options import RELAY_PREFIX
from outbox.settlement import Outcome
from outbox.wakeups.base import CANCELLED

_LEFT_FOR = 0.25
"""Seconds until a claim looks again at jobs whose policy rows another transaction has locked, where they are more than
those that run. Fewer are left where they are: the next claim finds them."""


@dataclass(slots=True)
class Admitted:
    """What becomes of the candidates of a claim."""

    run: list[tuple[str, Any]] = field(default_factory=list)
    """Queues and rows, in the order in which they were found."""
    rejected: list[Unreadable] = field(default_factory=list)
    """Rows that no worker can read: they become failed jobs."""
    parked: list[bytes] = field(default_factory=list)
    """Jobs that wait for their policy: they are parked already."""
    postponed: list[tuple[bytes, float]] = field(default_factory=list)
    """Jobs that claims find again after so many seconds."""
    skipped: list[tuple[Candidate, str]] = field(default_factory=list)
    """Jobs that are removed, each with the reason."""
    paused: bool = False
    """Whether some are of a job class or a key that is paused: they are parked already."""
    replaced: list[bytes] = field(default_factory=list)
    """Running jobs that are cancelled for others."""
    replacing: dict[bytes, tuple[JobId, ...]] = field(default_factory=dict)
    """For which job each of them is, by its id."""
    cancelled: list[Leaving] = field(default_factory=list)
    """Those of them that have policies, once they are removed."""
    payloads: list[tuple[bytes, str, str]] = field(default_factory=list)
    """Jobs that run with another payload than that of their row, and the headers that go with it."""

    @property
    def held_back(self) -> bool:
        """Whether policies or pauses have held back some: then good jobs may be behind them."""
        return bool(self.parked or self.postponed or self.skipped or self.paused)

    @property
    def leaving(self) -> list[Leaving]:
        """Those that are skipped, in the order of the key."""
        jobs = [Leaving(each.job_id, each.row.policies, each.headers, Outcome.SKIPPED) for each, _ in self.skipped]
        return sorted(jobs, key=lambda job: job.job_id)

    @property
    def verdicts(self) -> bool:
        """Whether there is something to write of what policies have decided."""
        return self.held_back or bool(self.replaced or self.payloads)


async def admit(tx: SqlConnection, dialect: Dialect, found: Candidates) -> Admitted:
    """Runs in the claim's transaction, with all candidates locked. Jobs without a policy cost no statement."""
    admitted = Admitted()
    gated: list[Candidate] = []
    queues: Sequence[QueueRows] = found.queues
    if any(each.rows and each.rows[0].flags & ANY_PAUSE for each in queues):
        queues = await run(unpaused(dialect, found), tx)
        admitted.paused = queues is not found.queues
    for queue, rows, _ in queues:
        for row in rows:
            reason = flaw(row)
            if reason is None and row.policies is not None:
                reason = _gate(queue, row, gated)
            if reason is None:
                admitted.run.append((queue, row))
            else:
                admitted.rejected.append(Unreadable(dialect.key_of(row), row.id, reason))
    if gated:
        await _ask_policies(tx, dialect, admitted, gated)
    return admitted


def _gate(queue: str, row: Any, gated: list[Candidate]) -> str | None:
    """Add a row to those that policies are asked about. Returns why it cannot be read, or None."""
    if type(row.policies) is not int:
        return f"the column policies holds no bits: {ascii(row.policies)[:200]}"
    if row.attempts and queue.startswith(RELAY_PREFIX):
        # Admitted before: the other store has it, and the relay looks whether it has ended there.
        return None
    try:
        headers = Headers.load(row.headers)
    except InvalidPayload as error:
        return str(error)
    gated.append(Candidate(stored_job_id(row.id), queue, row, headers))
    return None


async def _ask_policies(tx: SqlConnection, dialect: Dialect, admitted: Admitted, gated: Sequence[Candidate]) -> None:
    verdicts = await run(registry.admit(dialect, gated), tx)
    replaced: dict[bytes, Any] = {}
    left: list[bytes] = []
    for candidate in gated:
        row = candidate.row
        match verdicts[candidate.job_id]:
            case Run(payload, version, replaces):
                if replaces:
                    admitted.replaced += [job_id.bytes for job_id in replaces]
                    admitted.replacing[bytes(row.id)] = replaces
                replaced[row.id] = row
                if payload is not None:
                    headers = _with_version(row.headers, candidate.headers, version)
                    replaced[row.id] = row._replace(payload=payload, headers=headers)
                    admitted.payloads.append((bytes(row.id), payload, headers))
            case Leave():
                left.append(bytes(row.id))
            case Park(None):
                admitted.parked.append(bytes(row.id))
            case Park(seconds):
                admitted.postponed.append((bytes(row.id), seconds or 0.0))
            case Skip(reason):
                admitted.skipped.append((candidate, reason))
    if len(left) > len(replaced):
        admitted.postponed += [(job_id, _LEFT_FOR) for job_id in left]
    asked = {candidate.row.id for candidate in gated}
    admitted.run = [
        (queue, replaced.get(row.id, row)) for queue, row in admitted.run if row.id in replaced or row.id not in asked
    ]


def _with_version(text: str, headers: Headers, version: int | None) -> str:
    return text if version == headers.version else headers.model_copy(update={"version": version}).dump()


def write_verdicts(dialect: Dialect, admitted: Admitted, connection: str) -> Plan[PolicyNews]:
    """Write what becomes of the jobs that policies have not admitted, and the payloads that they have given."""
    for key, payload, headers in sorted(admitted.payloads):
        yield dialect.replace_payload(), (payload, headers, key)
    for pairs in chunked(sorted(admitted.postponed)):
        delays = [value for key, seconds in pairs for value in (key, int(seconds * MICROSECONDS))]
        yield dialect.postpone(len(pairs)), (*delays, *(key for key, _ in pairs))
    news = PolicyNews()
    if admitted.replaced:
        rows = yield from gated_rows(dialect, "queue_jobs", admitted.replaced)
        admitted.cancelled = [Leaving(*row, Outcome.CANCELLED) for row in rows]
        news = yield from registry.settled(dialect, admitted.cancelled)
        for keys in chunked(sorted(admitted.replaced)):
            yield dialect.remove_locked(len(keys)), tuple(keys)
        news += PolicyNews(frozenset({CANCELLED}))
    if not admitted.skipped:
        return news
    for keys in chunked(sorted(bytes(each.row.id) for each, _ in admitted.skipped)):
        yield dialect.remove_locked(len(keys)), tuple(keys)
    news += yield from registry.settled(dialect, admitted.leaving)
    events = [
        JobSkipped(each.job_id, each.row.name, each.queue, connection, each.row.attempts + 1, reason)
        for each, reason in admitted.skipped
    ]
    return news + PolicyNews(events=tuple(events))
