"""A policy that decides as a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies.base import (
    Candidate,
    Leaving,
    PolicyRows,
    Refusal,
    Returning,
    Verdict,
)
from outbox.drivers.values import PolicyNews
from outbox.envelope import Envelope
from outbox.events import Event
from outbox.ids import JobId
from outbox.policies.base import Policies
from outbox.settlement import Outcome
from tests.conformance.jobs import envelope

HEADERS = '{"trace":{"traceparent":"00-1"}}'


class Told(PolicyRows):
    """Decides as the test says, and notes what it is told."""

    def __init__(self, policy: Policies) -> None:
        self.policy = policy
        self.verdicts: dict[JobId, Verdict] = {}
        self.refused: dict[JobId, Refusal] = {}
        self.dispatches: list[JobId] = []
        self.left: list[tuple[JobId, Outcome]] = []
        self.starts: list[tuple[list[JobId], list[JobId]]] = []
        self.after_commit: list[JobId] = []
        self.unparks: JobId | None = None
        self.events: tuple[Event, ...] = ()

    def dispatched(self, dialect: Dialect, jobs: Sequence[Envelope]) -> Plan[None]:
        rows = yield dialect.held(len(jobs), lock=False), tuple(job.id.bytes for job in jobs)
        assert len(list(rows)) == len(jobs), "the rows are there"
        self.dispatches += [job.id for job in jobs]

    def admit(self, dialect: Dialect, candidates: Sequence[Candidate]) -> Plan[Mapping[JobId, Verdict]]:
        yield from ()
        asked = {candidate.job_id for candidate in candidates}
        return {job_id: verdict for job_id, verdict in self.verdicts.items() if job_id in asked}

    def started(self, dialect: Dialect, starting: Sequence[Candidate], held_back: Sequence[Candidate]) -> Plan[None]:
        yield from ()
        self.starts.append(([each.job_id for each in starting], [each.job_id for each in held_back]))

    def settled(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[PolicyNews]:
        self.left += [(job.job_id, job.outcome) for job in jobs]
        assert all(job.headers.trace == {"traceparent": "00-1"} for job in jobs)
        if self.unparks is None:
            return PolicyNews(events=self.events)
        unparked = yield dialect.unpark(1), (self.unparks.bytes,)
        return PolicyNews(frozenset({"default"}) if unparked.rowcount else frozenset(), self.events)

    def cancelled_in_session(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[None]:
        return (yield from self.settled(dialect, jobs)) and None

    def retried(self, dialect: Dialect, jobs: Sequence[Returning]) -> Plan[Mapping[JobId, Refusal]]:
        yield from ()
        return {job.job_id: self.refused[job.job_id] for job in jobs if job.job_id in self.refused}

    def explain(self, dialect: Dialect, job: Leaving) -> Plan[Sequence[str]]:
        yield from ()
        return [f"{self.policy.name} of {job.job_id}"]

    async def committed(self, database: object, jobs: Sequence[Leaving]) -> PolicyNews:
        self.after_commit += [job.job_id for job in jobs]
        return PolicyNews(frozenset({"other"}))


def gated(policies: Policies = Policies.KEY, number: int = 0) -> Envelope:
    return envelope(number)._replace(policies=policies, headers=HEADERS)
