"""Jobs with a rate limit. `policies.rate` decides; states are in ``queue_rates``, waiting jobs in ``queue_rate_waits``.

A claim takes from the limits in the transaction that starts the job. What a limit refuses is parked, and only the first
of a limit gets the time at which it may start. When that job starts, the next one gets its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect, Statement
from outbox.drivers.database.policies import rate_statements as statements
from outbox.drivers.database.policies import rate_upkeep
from outbox.drivers.database.policies.base import Candidate, Leaving, PolicyRows, Upkeep, Verdict
from outbox.drivers.database.policies.rate_admission import Admission
from outbox.drivers.database.policies.rate_release import release
from outbox.drivers.values import PolicyNews
from outbox.envelope import Headers
from outbox.ids import JobId
from outbox.policies.base import Policies
from outbox.policies.rate import SECOND, State
from outbox.policies.rate_limits import Terms
from outbox.policies.slots import slot_of
from outbox.settlement import Outcome

_PERHAPS_WAITED = {Outcome.CANCELLED, Outcome.SKIPPED, Outcome.FAILED}
"""How a job ends that may not have started: an operator has removed it, or its row cannot be read."""


class RateRows(PolicyRows):
    policy = Policies.RATE
    tables = ("queue_rate_waits", "queue_rates")

    def admit(self, dialect: Dialect, candidates: Sequence[Candidate]) -> Plan[Mapping[JobId, Verdict]]:
        return Admission(dialect, candidates).decide()

    def parked_before(self, dialect: Dialect, jobs: Sequence[Candidate]) -> Plan[None]:
        """A job that waits for its key gives up its place, and takes another one when the key lets it in: its limit may
        admit many others until then."""
        waits = yield from statements.waits_of(dialect, [job.job_id.bytes for job in jobs])
        if not waits:
            return
        slots = yield from statements.lock_slots(dialect, {wait.rate for wait in waits.values()}, wait=False)
        given = [wait for wait in waits.values() if slot_of(wait.rate) in slots]
        yield from statements.delete_waits([wait.seq for wait in given])
        facts = yield from statements.facts_of(dialect, {wait.rate for wait in given})
        yield from release(dialect, facts)

    def started(self, dialect: Dialect, starting: Sequence[Candidate], held_back: Sequence[Candidate]) -> Plan[None]:  # noqa: ARG002
        """What another policy holds back gives back what it has taken."""
        terms = {rate: each for job in held_back for rate, each in _terms(job.headers).items()}
        if not terms:
            return
        facts = yield from statements.facts_of(dialect, terms)
        changed = yield from statements.terms_set(dialect, [each.name for each in terms.values()])
        states: dict[bytes, State] = {}
        for job in held_back:
            cost = 1 if job.headers.rates is None else job.headers.rates.cost
            for rate, each in _terms(job.headers).items():
                limit = changed.get(each.name, each).limit
                states[rate] = limit.given_back(states.get(rate, facts[rate].state), cost)
        terms = {rate: changed.get(each.name, each) for rate, each in terms.items()}
        yield from statements.write_states(dialect, states, terms, {}, facts)

    def rescheduled(self, dialect: Dialect, job: Leaving, due: Statement) -> Plan[str | None]:  # noqa: ARG002
        """Those behind it get their times when it starts."""
        waits = yield from statements.waits_of(dialect, [job.job_id.bytes])
        return "its rate limit has given it its time" if waits else None

    def settled(self, dialect: Dialect, jobs: Sequence[Leaving]) -> Plan[PolicyNews]:
        perhaps = [job for job in jobs if job.outcome in _PERHAPS_WAITED]
        if not perhaps:
            return PolicyNews()
        waits = yield from statements.waits_of(dialect, [job.job_id.bytes for job in perhaps])
        if not waits:
            return PolicyNews()
        rates = {wait.rate for wait in waits.values()}
        yield from statements.lock_slots(dialect, rates, wait=True)
        yield from statements.delete_waits([wait.seq for wait in waits.values()])
        facts = yield from statements.facts_of(dialect, rates)
        return PolicyNews((yield from release(dialect, facts)).queues)

    def explain(self, dialect: Dialect, job: Leaving) -> Plan[Sequence[str]]:
        return rate_upkeep.lines(dialect, job)

    async def upkeep(self, database: Database) -> Upkeep:
        return Upkeep(await rate_upkeep.repair(database))


def _terms(headers: Headers) -> dict[bytes, Terms]:
    return {} if headers.rates is None else headers.rates.by_id()


def move(dialect: Dialect, refused: Iterable[tuple[Headers, float]]) -> Plan[None]:
    """The limits of these jobs admit nothing for so many seconds."""
    seconds: dict[bytes, float] = {}
    terms: dict[bytes, Terms] = {}
    keys: dict[bytes, str | None] = {}
    for headers, delay in refused:
        for rate, each in _terms(headers).items():
            seconds[rate] = max(delay, seconds.get(rate, 0.0))
            terms[rate] = each
            keys[rate] = None if headers.rates is None else headers.rates.key
    if not seconds:
        return
    yield from statements.lock_slots(dialect, sorted(seconds, key=slot_of), wait=True)
    changed = yield from statements.terms_set(dialect, [each.name for each in terms.values()])
    terms = {rate: changed.get(each.name, each) for rate, each in terms.items()}
    facts = yield from statements.facts_of(dialect, seconds)
    states = {
        rate: terms[rate].limit.pushed(facts[rate].state, facts[rate].now + int(delay * SECOND))
        for rate, delay in seconds.items()
    }
    yield from statements.write_states(dialect, states, terms, keys, facts)
