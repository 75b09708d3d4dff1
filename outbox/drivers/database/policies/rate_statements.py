"""Statements on the rows of rate limits. What they change is under the locks of slots."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from pydantic import ValidationError

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies.slot_locks import lock_rows
from outbox.drivers.database.tables import rate_slots
from outbox.errors import ConfigurationError
from outbox.policies.rate import State
from outbox.policies.rate_limits import Terms, shown
from outbox.policies.slots import slots_of

_log = logging.getLogger("outbox.drivers")

PARKED, LET_IN = 0, 1
_RATES_AT_ONCE = 200


class Wait(NamedTuple):
    """A row of `rate_waits`."""

    seq: int
    job_id: bytes
    rate: bytes
    state: int
    cost: int


class RateFacts(NamedTuple):
    """What is stored about a limit and a key."""

    stored: Terms | None
    """None where it has no row yet."""
    state: State
    parked: bool
    """Whether jobs are parked."""
    let_in: int
    """Live jobs that have a time. When the last of them starts, the next ones get theirs."""
    now: int
    """Nanoseconds since 1970."""

    @property
    def waited_for(self) -> bool:
        return self.parked or self.let_in > 0


class NewWait(NamedTuple):
    job_id: bytes
    rate: bytes
    cost: int


def lock_slots(dialect: Dialect, rates: Iterable[bytes], *, wait: bool) -> Plan[set[int]]:
    """Lock the slots of ``rates``; return those that were locked. Without ``wait``, those of others are left out."""
    end = dialect.for_update if wait else dialect.skip_locked
    return (yield from lock_rows(dialect, rate_slots.name, slots_of(rates), end))


def facts_of(dialect: Dialect, rates: Iterable[bytes]) -> Plan[dict[bytes, RateFacts]]:
    facts: dict[bytes, RateFacts] = {}
    for some in chunked(sorted(set(rates)), _RATES_AT_ONCE):
        parts: list[str] = []
        parameters: list[bytes] = []
        for rate in some:
            listed, more = dialect.id_list([rate])
            parts.append(f"SELECT {listed} AS id")
            parameters += more
        waits = f"FROM queue_rate_waits AS w {dialect.wait_hint}"
        rows = yield (
            f"SELECT asked.id, r.name, r.rate, r.burst, r.align, r.arrival, r.used, "
            f"{dialect.microseconds(dialect.now)}, "
            f"EXISTS (SELECT 1 {waits} WHERE w.rate_id = asked.id AND w.state = {PARKED}), "
            f"(SELECT COUNT(*) {waits} JOIN queue_jobs AS j ON j.id = w.job_id "
            f"WHERE w.rate_id = asked.id AND w.state = {LET_IN}) "
            f"FROM ({' UNION ALL '.join(parts)}) AS asked LEFT JOIN queue_rates AS r ON r.id = asked.id",
            tuple(parameters),
        )
        for rate, name, text, burst, align, arrival, used, microseconds, parked, let_in in rows:
            stored = None
            if arrival is not None:
                stored = Terms.model_construct(name=name, rate=text, burst=burst, align=align)
            state = State() if arrival is None else State(int(arrival), int(used))
            facts[bytes(rate)] = RateFacts(stored, state, bool(parked), int(let_in), int(microseconds) * 1000)
    return facts


@lru_cache(1_000)
def is_limit(name: str, rate: object, burst: object, align: object) -> bool:
    """Whether these columns are a limit. Other programs may have written them: that is said once."""
    try:
        Terms(name=name, rate=rate, burst=burst, align=align).limit  # noqa: B018 - for its error
    except (ConfigurationError, ValidationError) as error:
        said = str(error) if isinstance(error, ConfigurationError) else error.errors(include_url=False)[0]["msg"]
        _log.warning("what is stored of the limit %s does not count: %s", ascii(name), said)
        return False
    return True


def terms_set(dialect: Dialect, names: Iterable[str]) -> Plan[dict[str, Terms]]:
    """The rates that an operator has set. What is set and is no rate does not count."""
    found: dict[str, Terms] = {}
    for some in chunked(sorted(set(names))):
        rows = yield (
            "SELECT name, rate, burst, align FROM queue_limits "
            f"WHERE rate IS NOT NULL AND name IN ({dialect.placeholders(len(some))})",
            tuple(some),
        )
        for name, rate, burst, align in rows:
            if is_limit(name, rate, burst, align):
                found[name] = Terms.model_construct(name=name, rate=rate, burst=burst, align=align)
    return found


def write_states(
    dialect: Dialect,
    states: Mapping[bytes, State],
    terms: Mapping[bytes, Terms],
    keys: Mapping[bytes, str | None],
    facts: Mapping[bytes, RateFacts],
) -> Plan[None]:
    """Write the states that have changed, and the terms by which they were reached."""
    new = {rate: state for rate, state in states.items() if facts[rate].stored is None}
    old = {rate: state for rate, state in states.items() if rate not in new}
    yield from _insert_states(dialect, new, terms, keys)
    yield from _update_states(dialect, {rate: state for rate, state in old.items() if state != facts[rate].state})
    for rate in sorted(old):
        if facts[rate].stored != terms[rate]:
            yield from _update_terms(dialect, rate, terms[rate])


def _insert_states(
    dialect: Dialect, states: Mapping[bytes, State], terms: Mapping[bytes, Terms], keys: Mapping[bytes, str | None]
) -> Plan[None]:
    for some in chunked(sorted(states), _RATES_AT_ONCE):
        rows: list[str] = []
        parameters: list[object] = []
        for rate in some:
            state, by = states[rate], terms[rate]
            listed, more = dialect.id_list([rate])
            rows.append(f"({listed}, {dialect.placeholders(5)}, {state.at}, {state.used})")
            parameters += (*more, by.name, shown(keys[rate]), by.rate, by.burst, by.align)
        yield (
            f"INSERT INTO queue_rates (id, name, key_name, rate, burst, align, arrival, used) VALUES {', '.join(rows)}",
            tuple(parameters),
        )


def _update_states(dialect: Dialect, states: Mapping[bytes, State]) -> Plan[None]:
    for some in chunked(sorted(states), _RATES_AT_ONCE):
        arrivals: list[str] = []
        uses: list[str] = []
        parameters: list[bytes] = []
        for rate in some:
            listed, more = dialect.id_list([rate])
            arrivals.append(f"WHEN {listed} THEN {states[rate].at}")
            uses.append(f"WHEN {listed} THEN {states[rate].used}")
            parameters += more
        listed, more = dialect.id_list(some)
        yield (
            f"UPDATE queue_rates SET arrival = CASE id {' '.join(arrivals)} END, used = CASE id {' '.join(uses)} END "
            f"WHERE id IN ({listed})",
            (*parameters, *parameters, *more),
        )


def _update_terms(dialect: Dialect, rate: bytes, terms: Terms) -> Plan[None]:
    mark = dialect.placeholder
    listed, parameters = dialect.id_list([rate])
    yield (
        f"UPDATE queue_rates SET rate = {mark}, burst = {mark}, align = {mark} WHERE id = {listed}",
        (terms.rate, terms.burst, terms.align, *parameters),
    )


def waits_of(dialect: Dialect, ids: Sequence[bytes]) -> Plan[dict[bytes, Wait]]:
    """The rows of these jobs."""
    found: dict[bytes, Wait] = {}
    for some in chunked(sorted(ids)):
        listed, parameters = dialect.id_list(some)
        rows = yield (
            f"SELECT seq, job_id, rate_id, state, cost FROM queue_rate_waits WHERE job_id IN ({listed})",
            parameters,
        )
        found.update((wait.job_id, wait) for wait in map(_wait, rows))
    return found


def first_parked(dialect: Dialect, rates: Iterable[bytes], limit: int) -> Plan[list[Wait]]:
    """Up to ``limit`` waits for each of the rates, in the order in which they came."""
    found: list[Wait] = []
    for some in chunked(sorted(rates), _RATES_AT_ONCE):
        parts: list[str] = []
        parameters: list[bytes] = []
        for rate in some:
            listed, more = dialect.id_list([rate])
            parts.append(
                "SELECT * FROM (SELECT seq, job_id, rate_id, state, cost "
                f"FROM queue_rate_waits {dialect.wait_hint} WHERE rate_id = {listed} AND state = {PARKED} "
                f"ORDER BY rate_id, state, seq LIMIT {limit}) AS first_of_one"
            )
            parameters += more
        rows = yield " UNION ALL ".join(parts), tuple(parameters)
        found += map(_wait, rows)
    return sorted(found, key=attrgetter("seq"))


def insert_waits(dialect: Dialect, waits: Sequence[NewWait]) -> Plan[None]:
    for some in chunked(waits):
        rows: list[str] = []
        parameters: list[bytes] = []
        for wait in some:
            listed, more = dialect.id_list([wait.job_id, wait.rate])
            rows.append(f"({listed}, {PARKED}, {wait.cost})")
            parameters += more
        yield (
            f"INSERT INTO queue_rate_waits (job_id, rate_id, state, cost) VALUES {', '.join(rows)}",
            tuple(parameters),
        )


def set_state(sequences: Collection[int], state: int) -> Plan[None]:
    for some in chunked(sorted(sequences)):
        yield f"UPDATE queue_rate_waits SET state = {state} WHERE seq IN ({', '.join(map(str, some))})", ()


def wait_for(dialect: Dialect, sequence: int, rate: bytes) -> Plan[None]:
    """The job of this row waits for another limit."""
    listed, parameters = dialect.id_list([rate])
    yield f"UPDATE queue_rate_waits SET rate_id = {listed}, state = {PARKED} WHERE seq = {sequence}", parameters


def delete_waits(sequences: Collection[int]) -> Plan[None]:
    for some in chunked(sorted(sequences)):
        yield f"DELETE FROM queue_rate_waits WHERE seq IN ({', '.join(map(str, some))})", ()


def _wait(row: Sequence[object]) -> Wait:
    seq, job_id, rate, state, cost = row
    return Wait(int(seq), bytes(job_id), bytes(rate), int(state), int(cost))  # type: ignore[call-overload]
