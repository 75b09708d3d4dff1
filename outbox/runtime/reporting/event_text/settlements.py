"""Texts of ends of attempts that a store does not take."""

from __future__ import annotations

from outbox.events import SettlementPostponed, SettlementRefused, SettlementsAbandoned
from outbox.runtime.reporting.event_text.base import EventText, Level, describe
from outbox.runtime.reporting.event_text.phrases import attempt_name, failure_text, job_count


@describe.register
def _(event: SettlementRefused) -> EventText:
    return EventText(
        Level.ERROR,
        "refused",
        f"{attempt_name(event)}: the store does not take its end ({event.outcome.value}): "
        f"{failure_text(event.failure)}; it runs again when its lease ends",
    )


@describe.register
def _(event: SettlementPostponed) -> EventText:
    return EventText(
        Level.ERROR,
        "postponed",
        f"{attempt_name(event)}: the store does not take its end ({event.outcome.value}) for now: "
        f"{failure_text(event.failure)}; trying again while this worker runs",
    )


@describe.register
def _(event: SettlementsAbandoned) -> EventText:
    return EventText(
        Level.ERROR,
        "abandoned",
        f"{event.connection}: the ends of {job_count(len(event.job_ids))} could not be written before the worker had "
        "to stop; they run again when their leases end",
    )
