"""Effects of settlements: what else their transaction writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.jobs.insert import own_insert_statements
from outbox.settlement import Effect, InsertJobs, Settlement


def _insert_jobs(dialect: Dialect, effects: Sequence[InsertJobs]) -> Plan[None]:
    return own_insert_statements(dialect, [envelope for effect in effects for envelope in effect.envelopes])


_APPLIERS: Mapping[type[Effect], Callable[[Dialect, Sequence[Any]], Plan[None]]] = MappingProxyType(
    {InsertJobs: _insert_jobs}
)
"""How each kind is written, all effects of a kind at once."""
_ORDER = list(_APPLIERS)
"""The kinds of a transaction are written in this order, so that all transactions lock rows in one order."""


def apply_effects(dialect: Dialect, settlements: Iterable[Settlement]) -> Plan[None]:
    """Write the effects of ``settlements``, which this transaction has accepted."""
    by_kind: dict[type[Effect], list[Effect]] = {}
    for settlement in settlements:
        for effect in settlement.effects:
            by_kind.setdefault(type(effect), []).append(effect)
    for kind in sorted(by_kind, key=_ORDER.index):
        yield from _APPLIERS[kind](dialect, by_kind[kind])
