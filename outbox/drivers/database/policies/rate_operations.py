"""What operators see of limits and do to them, and what applications take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from outbox.drivers.database.chunks import chunked
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.policies import job_rows
from outbox.drivers.database.policies import rate_statements as statements
from outbox.drivers.database.policies.base import done
from outbox.drivers.database.policies.rate_statements import LET_IN, PARKED
from outbox.drivers.values import LimitStatus
from outbox.policies.rate import SECOND, State
from outbox.policies.rate_limits import Terms, rate_id

_MOVED_AT_ONCE = 1_000
_LONGEST_WAITING = 1_000
"""Jobs whose limits are listed first where not all are."""
_COUNTED, _FEWEST = 5_000, 20
"""Waiting jobs that are counted for all limits of a bounded list together, and at least for each."""
_RATES_AT_ONCE = 100


class _Waiting(NamedTuple):
    """The jobs that wait for a limit."""

    number: int = 0
    at_least: bool = False
    seconds: float | None = None
    """Until the first of them may start."""


def list_limits(dialect: Dialect, most: int | None = None) -> Plan[Sequence[LimitStatus]]:
    """Those that an operator has set, and those that jobs have used: all, or at most ``most`` at a bounded cost."""
    rows = yield "SELECT name, rate, burst, align, concurrency FROM queue_limits ORDER BY name", ()
    limits = {row[0]: row for row in rows}
    rates = yield from (_rates(dialect) if most is None else _some_rates(dialect, most))
    waits = yield from (_waits(dialect) if most is None else _some_waits(dialect, [bytes(row[0]) for row in rates]))
    found: list[LimitStatus] = []
    used = set()
    for rate, name, key, *declared, arrival, times, microseconds in rates:
        changed = limits.get(name)
        is_set = changed is not None and changed[1] is not None
        text, burst, align = changed[1:4] if is_set and changed is not None else declared
        terms = Terms.model_construct(name=name, rate=text, burst=burst, align=align)
        left = None
        if statements.is_limit(name, text, burst, align):
            left = terms.limit.left(State(int(arrival), int(times)), int(microseconds) * 1000)
        waiting = waits.get(bytes(rate), _Waiting())
        due = None if waiting.seconds is None else max(0.0, waiting.seconds)
        concurrency = None if changed is None else changed[4]
        found.append(
            LimitStatus(name, key, text, burst, align, left, waiting.number, due, concurrency, is_set, waiting.at_least)
        )
        used.add(name)
    found += [
        LimitStatus(name, None, rate, burst, align, concurrency=concurrency, is_set=True)
        for name, rate, burst, align, concurrency in limits.values()
        if name not in used
    ]
    return sorted(found, key=lambda limit: (limit.name, limit.key or ""))


def _rates(dialect: Dialect, part: str = "", parameters: tuple[Any, ...] = ()) -> Plan[list[Any]]:
    rows = yield (
        f"SELECT id, name, key_name, rate, burst, align, arrival, used, {dialect.microseconds(dialect.now)} "
        f"FROM queue_rates {part}",
        parameters,
    )
    return [row for row in rows if isinstance(row[0], bytes | bytearray)]


def _some_rates(dialect: Dialect, most: int) -> Plan[list[Any]]:
    """Those that jobs have waited for longest, and then any."""
    rows = yield (
        "SELECT DISTINCT rate_id FROM (SELECT rate_id FROM queue_rate_waits ORDER BY seq "
        f"LIMIT {_LONGEST_WAITING}) AS first",
        (),
    )
    waited_for = sorted(bytes(rate) for (rate,) in rows)[:most]
    found: dict[bytes, Any] = {}
    for some in chunked(waited_for):
        listed, parameters = dialect.id_list(some)
        part = yield from _rates(dialect, f"{dialect.primary_hint} WHERE id IN ({listed})", parameters)
        found.update((bytes(row[0]), row) for row in part)
    for row in (yield from _rates(dialect, f"{dialect.primary_hint} ORDER BY id LIMIT {most}")):
        if len(found) < most:
            found[bytes(row[0])] = row
    return list(found.values())


def _waits(dialect: Dialect) -> Plan[dict[bytes, _Waiting]]:
    rows = yield (
        "SELECT w.rate_id, COUNT(*), MIN(CASE WHEN w.state = "
        f"{LET_IN} THEN {dialect.seconds_until('j.available_at')} END) FROM queue_rate_waits AS w "
        "LEFT JOIN queue_jobs AS j ON j.id = w.job_id GROUP BY w.rate_id",
        (),
    )
    known = [row for row in rows if isinstance(row[0], bytes | bytearray)]
    return {bytes(rate): _waiting(count, None, seconds) for rate, count, seconds in known}


def _some_waits(dialect: Dialect, rates: Sequence[bytes]) -> Plan[dict[bytes, _Waiting]]:
    limit = max(_FEWEST, _COUNTED // max(1, len(rates)))
    until = dialect.seconds_until("j.available_at")
    found: dict[bytes, _Waiting] = {}
    for some in chunked(rates, _RATES_AT_ONCE):
        selects: list[str] = []
        parameters: tuple[Any, ...] = ()
        for number, rate in enumerate(some):
            listed, more = dialect.id_list([rate])
            part = f"FROM queue_rate_waits AS w {dialect.wait_hint} WHERE w.rate_id = {listed} AND w.state"
            # Few are let in at once.
            selects.append(
                f"SELECT {number}, (SELECT COUNT(*) FROM (SELECT 1 {part} IN ({PARKED}, {LET_IN}) LIMIT {limit}) "
                f"AS some{number}), (SELECT MIN({until}) FROM (SELECT w.job_id {part} "
                f"= {LET_IN} LIMIT {limit}) AS first{number} JOIN queue_jobs AS j ON j.id = first{number}.job_id)"
            )
            parameters += more * 2
        rows = yield " UNION ALL ".join(selects), parameters
        found.update((some[int(number)], _waiting(count, limit, seconds)) for number, count, seconds in rows)
    return found


def _waiting(count: Any, limit: int | None, seconds: Any) -> _Waiting:
    return _Waiting(int(count), int(count) == limit, None if seconds is None else float(seconds))


def set_limit(dialect: Dialect, name: str, terms: Terms | None, concurrency: int | None) -> Plan[frozenset[str]]:
    mark = dialect.placeholder
    rows = yield f"SELECT name FROM queue_limits WHERE name = {mark} {dialect.for_update}", (name,)
    if not list(rows):
        yield f"INSERT INTO queue_limits (name, set_at) VALUES ({mark}, {dialect.now})", (name,)
    if concurrency is not None:
        yield (
            f"UPDATE queue_limits SET concurrency = {mark}, set_at = {dialect.now} WHERE name = {mark}",
            (concurrency, name),
        )
    if terms is None:
        return frozenset()
    yield (
        f"UPDATE queue_limits SET rate = {mark}, burst = {mark}, align = {mark}, set_at = {dialect.now} "
        f"WHERE name = {mark}",
        (terms.rate, terms.burst, terms.align, name),
    )
    return (yield from _changed(dialect, name, terms))


def reset_limit(dialect: Dialect, name: str) -> Plan[tuple[bool, frozenset[str]]]:
    result = yield f"DELETE FROM queue_limits WHERE name = {dialect.placeholder}", (name,)
    known = result.rowcount > 0
    return known, (yield from _changed(dialect, name, None)) if known else frozenset()


def _changed(dialect: Dialect, name: str, terms: Terms | None) -> Plan[frozenset[str]]:
    """What was taken under other terms, and the times of those that wait, are worth no more than under ``terms``.

    Rows of jobs are locked before rows of policies. Those that cannot be locked are looked at when they are due.
    """
    rows = yield (
        "SELECT w.job_id FROM queue_rate_waits AS w JOIN queue_rates AS r ON r.id = w.rate_id "
        f"WHERE r.name = {dialect.placeholder} AND w.state = {LET_IN} LIMIT {_MOVED_AT_ONCE}",
        (name,),
    )
    ids = [bytes(job_id) for (job_id,) in rows]
    queues = (yield from job_rows.lock_jobs(dialect, ids)) if ids else {}
    rows = yield f"SELECT id FROM queue_rates WHERE name = {dialect.placeholder} LIMIT {_MOVED_AT_ONCE}", (name,)
    rates = [bytes(rate) for (rate,) in rows]
    if terms is not None and rates:
        yield from statements.lock_slots(dialect, rates, wait=True)
        facts = yield from statements.facts_of(dialect, rates)
        states = {rate: terms.limit.reset(each.state, each.now) for rate, each in facts.items()}
        yield from statements.write_states(dialect, states, dict.fromkeys(rates, terms), {}, facts)
    still = yield from statements.waits_of(dialect, sorted(queues)) if queues else done(dict[bytes, statements.Wait]())
    due = sorted(job_id for job_id in queues if job_id in still)
    if due:
        yield dialect.postpone(len(due)), (*(value for job_id in due for value in (job_id, 0)), *due)
    return frozenset(queues[job_id] for job_id in due)


def terms_of(dialect: Dialect, name: str) -> Plan[Terms | None]:
    changed = yield from statements.terms_set(dialect, [name])
    if name in changed:
        return changed[name]
    facts = yield from statements.facts_of(dialect, [rate_id(name, None)])
    return next(iter(facts.values())).stored


def take(dialect: Dialect, terms: Terms, cost: int, key: str | None) -> Plan[float]:
    rate = rate_id(terms.name, key)
    yield from statements.lock_slots(dialect, [rate], wait=True)
    changed = yield from statements.terms_set(dialect, [terms.name])
    terms = changed.get(terms.name, terms)
    facts = yield from statements.facts_of(dialect, [rate])
    state, now = facts[rate].state, facts[rate].now
    taken = terms.limit.take(state, now, cost)
    if not taken.admitted:
        return (taken.retry_at - now) / SECOND
    yield from statements.write_states(dialect, {rate: taken.state}, {rate: terms}, {rate: key}, facts)
    return 0.0
