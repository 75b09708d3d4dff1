"""Effects of settlements: what else their transaction writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from outbox.drivers.database import finished_jobs
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.jobs.insert import own_insert_statements
from outbox.drivers.database.policies import rates, registry
from outbox.drivers.database.policies.leaving import headers_of, leaving
from outbox.drivers.values import PolicyNews
from outbox.settlement import Effect, InsertJobs, KeepFinished, LeavePolicies, MoveRates, ReplaceHeaders, Settlement


def _insert_jobs(dialect: Dialect, effects: Sequence[InsertJobs]) -> Plan[PolicyNews]:
    yield from own_insert_statements(dialect, [envelope for effect in effects for envelope in effect.envelopes])
    return PolicyNews()


def _leave_policies(dialect: Dialect, effects: Sequence[LeavePolicies]) -> Plan[PolicyNews]:
    jobs = [leaving(*effect) for effect in effects]
    return registry.settled(dialect, sorted(jobs, key=lambda job: job.job_id))


def _move_rates(dialect: Dialect, effects: Sequence[MoveRates]) -> Plan[PolicyNews]:
    yield from rates.move(dialect, [(headers_of(effect.headers), effect.seconds) for effect in effects])
    return PolicyNews()


def _keep_finished(dialect: Dialect, effects: Sequence[KeepFinished]) -> Plan[PolicyNews]:
    yield from finished_jobs.keep(dialect, effects)
    return PolicyNews()


_APPLIERS: Mapping[type[Effect], Callable[[Dialect, Sequence[Any]], Plan[PolicyNews]]] = MappingProxyType(
    {
        InsertJobs: _insert_jobs,
        LeavePolicies: _leave_policies,
        MoveRates: _move_rates,
        KeepFinished: _keep_finished,
    }
)
"""How each kind is written, all effects of a kind at once."""
_ORDER = list(_APPLIERS)
"""The kinds of a transaction are written in this order, so that all transactions lock rows in one order."""


def apply_effects(dialect: Dialect, settlements: Iterable[Settlement]) -> Plan[PolicyNews]:
    """Write the effects of ``settlements``, which this transaction has accepted."""
    by_kind: dict[type[Effect], list[Effect]] = {}
    for settlement in settlements:
        for effect in settlement.effects:
            if isinstance(effect, ReplaceHeaders):
                # Written before the end of the attempt.
                continue
            by_kind.setdefault(type(effect), []).append(effect)
    news = PolicyNews()
    for kind in sorted(by_kind, key=_ORDER.index):
        news += yield from _APPLIERS[kind](dialect, by_kind[kind])
    return news
