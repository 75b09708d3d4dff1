"""Texts of what policies do."""

from __future__ import annotations

from outbox.events import (
    BatchDispatched,
    BatchEnded,
    ChainAdvanced,
    ChainDispatched,
    ChainEnded,
    CircuitClosed,
    CircuitOpened,
    KeyBlocked,
    KeyUnblocked,
)
from outbox.runtime.reporting.event_text.base import EventText, Level, describe
from outbox.runtime.reporting.event_text.phrases import job_count, one_line
from outbox.settlement import Outcome


@describe.register
def _(event: KeyBlocked) -> EventText:
    return EventText(
        Level.ERROR,
        "blocked",
        f"key {event.key}: the job {event.job_id} has failed, and what comes after it waits: "
        f"`outbox unblock {event.key} --retry` or `--skip`",
    )


@describe.register
def _(event: KeyUnblocked) -> EventText:
    return EventText(Level.NOTICE, "unblocked", one_line(f"key {event.key}: the job {event.job_id} blocks it no more"))


@describe.register
def _(event: ChainDispatched) -> EventText:
    return EventText(Level.QUIET, "dispatched", f"chain {event.chain_id} of {job_count(event.jobs)}")


@describe.register
def _(event: ChainAdvanced) -> EventText:
    text = f"{event.chain_id}: job {event.number} is {event.name} {event.job_id} in {event.queue}"
    return EventText(Level.QUIET, "chain", text)


@describe.register
def _(event: ChainEnded) -> EventText:
    level = Level.NOTICE if event.outcome is Outcome.FAILED else Level.QUIET
    return EventText(level, "chain", f"{event.chain_id} ended with job {event.number}: {event.outcome.value}")


@describe.register
def _(event: BatchDispatched) -> EventText:
    text = f"batch {event.name} {event.batch_id} of {event.total:,} members"
    return EventText(Level.QUIET, "dispatched", one_line(text))


@describe.register
def _(event: BatchEnded) -> EventText:
    level = Level.WARNING if event.state == "failed" else Level.QUIET
    text = f"{event.name} {event.batch_id}: {event.state}, {event.failed:,} of {event.total:,} members failed"
    return EventText(level, "batch", one_line(text))


@describe.register
def _(event: CircuitOpened) -> EventText:
    text = f"{event.job} is paused for {event.seconds:g} s: its jobs raise {event.error}"
    return EventText(Level.WARNING, "circuit", one_line(text))


@describe.register
def _(event: CircuitClosed) -> EventText:
    return EventText(Level.NOTICE, "circuit", one_line(f"{event.job} goes on: its probe has succeeded"))
