"""Tables for people. Without lines, so that they read the same in a terminal, a mail and a log."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from outbox.console.readable import age, ago, line, short_id
from outbox.drivers.base import FailedJob, QueueCounts, WorkerStatus

SILENT_SECONDS = 60.0
"""A worker that has not been heard of for so long is probably gone: it writes several times in between."""


def _table(*columns: str, numbers: Collection[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in _WHOLE)
    return table


# What makes no sense when cut; the others give way where a line is too short for all.
_WHOLE = {
    "ID",
    "Failed",
    "Tries",
    "Ready",
    "Delayed",
    "Reserved",
    "Oldest",
    "State",
    "Running",
    "Processed",
    "PID",
    "Seen",
}


def _cut(text: str) -> Text:
    return Text(line(text), no_wrap=True, overflow="ellipsis")


def failed_jobs(jobs: Sequence[FailedJob], now: datetime) -> Table:
    table = _table("ID", "Failed", "Tries", "Queue", "Job", "Error", "Payload", numbers={"Tries"})
    for job in jobs:
        table.add_row(
            short_id(job.id),
            ago(job.failed_at, now),
            str(job.attempts),
            _cut(job.queue),
            _cut(job.name),
            _cut(f"{job.failure.type.rpartition('.')[2]}: {job.failure.message}"),
            _cut(job.payload),
        )
    return table


def queues(counts: Sequence[QueueCounts], long: Collection[str] = ()) -> Table:
    """One line per queue; those in ``long`` are marked."""
    numbers = ("Ready", "Delayed", "Reserved", "Failed", "Oldest")
    table = _table("Queue", *numbers, "State", numbers=numbers)
    for queue in counts:
        states = ["paused"] * queue.paused + ["long"] * (queue.queue in long)
        table.add_row(
            _cut(queue.queue),
            f"{queue.ready:,}",
            f"{queue.delayed:,}",
            f"{queue.reserved:,}",
            f"{queue.failed:,}",
            "" if queue.oldest is None else age(queue.oldest),
            ", ".join(states),
            style="bold red" if queue.queue in long else None,
        )
    return table


def workers(statuses: Sequence[WorkerStatus], now: datetime) -> Table:
    table = _table(
        "Worker", "Host", "PID", "Queues", "Running", "Processed", "Failed", "Up", "Seen", "State",
        numbers={"PID", "Running", "Processed", "Failed"},
    )  # fmt: skip
    for worker in statuses:
        silent = worker.seen > SILENT_SECONDS
        table.add_row(
            _cut(worker.name),
            _cut(worker.host),
            str(worker.pid),
            _cut(worker.queues),
            f"{worker.running}/{worker.concurrency}",
            f"{worker.processed:,}",
            f"{worker.failed:,}",
            "" if worker.started_at is None else age((now - worker.started_at).total_seconds()),
            f"{age(worker.seen)} ago",
            "silent" if silent else "",
            style="yellow" if silent else None,
        )
    return table
