"""A claim's candidates with rate limits: which start now, and which wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import rate_statements as statements
from outbox.drivers.database.policies.base import RUN, Candidate, Leave, Park, Verdict
from outbox.drivers.database.policies.rate_release import release
from outbox.drivers.database.policies.rate_statements import NewWait, RateFacts, Wait
from outbox.ids import JobId
from outbox.policies.rate import State, take_all
from outbox.policies.rate_limits import RateHeader, Terms
from outbox.policies.slots import slot_of


class Admission:
    """One claim's decisions about rates."""

    def __init__(self, dialect: Dialect, candidates: Sequence[Candidate]) -> None:
        self._dialect = dialect
        self._jobs: dict[bytes, tuple[JobId, RateHeader]] = {}
        self._terms: dict[bytes, Terms] = {}
        self._keys: dict[bytes, str | None] = {}
        for candidate in candidates:
            header = candidate.headers.rates
            if header is None:
                continue
            self._jobs[bytes(candidate.row.id)] = candidate.job_id, header
            for rate, terms in header.by_id().items():
                self._terms[rate], self._keys[rate] = terms, header.key
        self._verdicts: dict[bytes, Verdict] = {}
        self._facts: dict[bytes, RateFacts] = {}
        self._states: dict[bytes, State] = {}
        """States that this claim has changed."""
        self._new_waits: list[NewWait] = []
        self._moved: list[tuple[int, bytes]] = []
        self._started: list[int] = []

    def decide(self) -> Plan[Mapping[JobId, Verdict]]:
        slots = yield from statements.lock_slots(self._dialect, self._terms, wait=False)
        asked = {
            job_id: header
            for job_id, (_, header) in self._jobs.items()
            if all(slot_of(rate) in slots for rate in header.by_id())
        }
        self._verdicts = {job_id: Leave() for job_id in self._jobs if job_id not in asked}
        rates = {rate for header in asked.values() for rate in header.by_id()}
        if asked:
            changed = yield from statements.terms_set(self._dialect, [self._terms[rate].name for rate in rates])
            self._terms = {rate: changed.get(each.name, each) for rate, each in self._terms.items()}
            self._facts = yield from statements.facts_of(self._dialect, rates)
            waits = yield from statements.waits_of(self._dialect, list(asked))
            self._let_in_here(waits)
            for job_id, header in sorted(asked.items(), key=lambda item: _place(waits.get(item[0]))):
                self._decide_job(job_id, header, waits.get(job_id))
            yield from self._write()
        return {self._jobs[job_id][0]: verdict for job_id, verdict in self._verdicts.items()}

    def _let_in_here(self, waits: Mapping[bytes, Wait]) -> None:
        """Jobs that were let in and are among the candidates wait no longer, or again."""
        for wait in waits.values():
            facts = self._facts.get(wait.rate)
            if facts is not None and wait.state == statements.LET_IN:
                self._facts[wait.rate] = facts._replace(let_in=facts.let_in - 1)

    def _decide_job(self, job_id: bytes, header: RateHeader, wait: Wait | None) -> None:
        limits = {rate: self._terms[rate].limit for rate in header.by_id()}
        if wait is None:
            ahead = next((rate for rate in limits if self._facts[rate].waited_for), None)
            if ahead is not None:
                self._park(job_id, header, None, ahead)
                return
        states = {rate: self._states.get(rate, self._facts[rate].state) for rate in limits}
        now = max(facts.now for facts in self._facts.values())
        admission = take_all(limits, states, now, header.cost)
        if admission.admitted:
            self._states |= admission.states
            self._verdicts[job_id] = RUN
            if wait is not None:
                self._started.append(wait.seq)
            return
        refusals = {rate: limit.take(states[rate], now, header.cost) for rate, limit in limits.items()}
        self._park(job_id, header, wait, max(refusals, key=lambda rate: refusals[rate].retry_at))

    def _park(self, job_id: bytes, header: RateHeader, wait: Wait | None, rate: bytes) -> None:
        """It waits for ``rate``."""
        self._verdicts[job_id] = Park()
        if wait is None:
            self._new_waits.append(NewWait(job_id, rate, header.cost))
        else:
            self._moved.append((wait.seq, rate))
        self._facts[rate] = self._facts[rate]._replace(parked=True)
        # Its row keeps the terms by which the next one gets its time.
        self._states.setdefault(rate, self._facts[rate].state)

    def _write(self) -> Plan[None]:
        dialect = self._dialect
        yield from statements.write_states(dialect, self._states, self._terms, self._keys, self._facts)
        yield from statements.delete_waits(self._started)
        for sequence, rate in self._moved:
            yield from statements.wait_for(dialect, sequence, rate)
        yield from statements.insert_waits(dialect, self._new_waits)
        # With the state that this claim leaves, and the terms that it has written.
        facts = {
            rate: each._replace(stored=self._terms[rate], state=self._states.get(rate, each.state))
            for rate, each in self._facts.items()
        }
        released = yield from release(dialect, facts)
        for job_id, delay in released.delays.items():
            if job_id in self._verdicts:
                self._verdicts[job_id] = Park(delay)


def _place(wait: Wait | None) -> tuple[bool, int]:
    """Those that were let in come first, in the order in which they came; others as they were found."""
    return (True, 0) if wait is None else (False, wait.seq)
