"""The tables of the commands. A `fitting_table.FittingTable` omits columns by their rank."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from outbox.console.decryption import short_payload
from outbox.console.fitting_table import Column, FittingTable
from outbox.console.formatting import ORDERED, age, ago, due, line, mebibytes, queue_name, short_id
from outbox.drivers.filters import FailedGroup
from outbox.drivers.pauses import Pause, PauseKind, described
from outbox.drivers.values import (
    SILENT_SECONDS,
    FailedJob,
    FinishedJob,
    JobState,
    QueueCounts,
    StoredJob,
    WorkerState,
    WorkerStatus,
)
from outbox.ids import JobId

_CONNECTION = Column("Connection", 1)


def _table(several: bool, *columns: Column) -> FittingTable:
    """With ``several`` connections, each row begins with the name of its connection."""
    return FittingTable([_CONNECTION, *columns] if several else columns)


def _prefix(several: bool, connection: str) -> tuple[str, ...]:
    return (connection,) if several else ()


def failed_jobs(jobs: Sequence[FailedJob], now: datetime, *, several: bool = False) -> FittingTable:
    table = _table(
        several,
        Column("ID", 0),
        Column("Failed", 3),
        Column("Tries", 5, number=True),
        Column("Queue", 4, whole=False),
        Column("Job", 1, whole=False),
        Column("Error", 2, whole=False),
        Column("Payload", 6, whole=False),
    )
    for job in jobs:
        table.add(
            *_prefix(several, job.connection),
            short_id(job.id),
            ago(job.failed_at, now),
            str(job.attempts),
            queue_name(job.queue),
            job.name,
            f"{job.failure.type.rpartition('.')[2]}: {job.failure.message}",
            short_payload(job.payload),
        )
    return table


def failed_groups(groups: Sequence[FailedGroup], now: datetime, *, several: bool = False) -> FittingTable:
    table = _table(
        several,
        Column("Failed", 0, number=True),
        Column("Job", 1, whole=False),
        Column("Error", 0, whole=False),
        Column("First", 3),
        Column("Last", 2),
        Column("Group", 1),
    )
    for group in groups:
        table.add(
            *_prefix(several, group.connection),
            f"{group.count:,}{'+' if group.at_least else ''}",
            group.name,
            group.error,
            ago(group.first, now),
            ago(group.last, now),
            group.fingerprint,
        )
    return table


def jobs(
    found: Sequence[tuple[str, StoredJob]], now: datetime, reasons: Mapping[JobId, str], *, several: bool = False
) -> FittingTable:
    """Pairs of a connection and a live job. Ids are whole, because looking up a part reads all jobs. ``reasons`` say
    why jobs are parked."""
    table = _table(
        several,
        Column("ID", 0),
        Column("State", 1),
        Column("Queue", 3, whole=False),
        Column("Job", 2, whole=False),
        Column("Tries", 5, number=True),
        Column("Due", 4),
        *([Column("Why", 4, whole=False)] if reasons else []),
        Column("Last error", 6, whole=False),
        Column("Payload", 7, whole=False),
    )
    for connection, job in found:
        table.add(
            *_prefix(several, connection),
            str(job.id),
            job.state.value,
            queue_name(job.queue),
            job.name,
            str(job.attempts),
            "" if job.state is JobState.PARKED else due(job.available_at, now),
            *([reasons.get(job.id, "")] if reasons else []),
            job.last_error or "",
            short_payload(job.payload),
        )
    return table


def finished_jobs(found: Sequence[tuple[str, FinishedJob]], now: datetime, *, several: bool = False) -> FittingTable:
    """Pairs of a connection and a completed job that is kept."""
    table = _table(
        several,
        Column("ID", 0),
        Column("Finished", 1),
        Column("Took", 3),
        Column("Queue", 4, whole=False),
        Column("Job", 2, whole=False),
        Column("Tries", 5, number=True),
        Column("Result", 3, whole=False),
    )
    for connection, job in found:
        table.add(
            *_prefix(several, connection),
            str(job.id),
            ago(job.finished_at, now),
            age(job.seconds),
            queue_name(job.queue),
            job.name,
            str(job.attempts),
            short_payload(job.result),
        )
    return table


def queues(
    counts: Sequence[tuple[str, QueueCounts]], long: Collection[tuple[str, str]] = (), *, several: bool = False
) -> FittingTable:
    """Pairs of a connection and a queue. Those in ``long`` are marked."""
    parked = any(queue.parked for _, queue in counts)
    table = _table(
        several,
        Column("Queue", 0, whole=False),
        Column("Ready", 0, number=True),
        Column("Delayed", 6, number=True),
        Column("Retrying", 4, number=True),
        Column("Reserved", 5, number=True),
        *([Column("Parked", 4, number=True)] if parked else []),
        Column("Failed", 1, number=True),
        Column("Oldest", 2, number=True),
        Column("State", 3),
    )
    for connection, queue in counts:
        is_long = (connection, queue.queue) in long
        states = ["paused"] * queue.paused + ["long"] * is_long + _certainty(queue)
        table.add(
            *_prefix(several, connection),
            queue_name(queue.queue),
            f"{queue.ready:,}",
            f"{queue.delayed:,}",
            f"{queue.retrying:,}",
            f"{queue.reserved:,}",
            *([f"{queue.parked:,}"] if parked else []),
            f"{queue.failed:,}",
            "" if queue.oldest is None else age(queue.oldest),
            ", ".join(states),
            style="bold red" if is_long else None,
        )
    return table


def pauses(found: Sequence[tuple[str, Pause]], *, several: bool = False) -> list[str]:
    """Lines about what the table of queues does not say:
    ``paused: the job app.SendMail: the provider is down, until 2026-11-29 14:00:00 UTC``."""
    return [
        line(described(pause), None) + (f", connection {connection}" if several else "")
        for connection, pause in found
        if pause.kind is not PauseKind.QUEUE or pause.reason or pause.until is not None
    ]


def _certainty(counts: QueueCounts) -> list[str]:
    """What is to be known of numbers that are not exact."""
    if counts.age is not None:
        return [f"counted {age(counts.age)} ago"]
    return ["at least"] if counts.at_least else []


def workers(statuses: Sequence[tuple[str, WorkerStatus]], now: datetime, *, several: bool = False) -> FittingTable:
    table = _table(
        several,
        Column("Worker", 0, whole=False),
        Column("Host", 7, whole=False),
        Column("PID", 5, number=True),
        Column("Queues", 3, whole=False),
        Column("Running", 1, number=True),
        Column("Processed", 4, number=True),
        Column("Failed", 4, number=True),
        Column("Up", 6),
        Column("Seen", 2),
        Column("Memory", 8, number=True),
        Column("Version", 9),
        Column("State", 2),
    )
    for connection, worker in statuses:
        silent = worker.seen > SILENT_SECONDS
        table.add(
            *_prefix(several, connection),
            worker.name,
            worker.host,
            str(worker.pid),
            worker.queues,
            f"{worker.running}/{worker.concurrency}",
            f"{worker.processed:,}",
            f"{worker.failed:,}",
            "" if worker.started_at is None else age((now - worker.started_at).total_seconds()),
            f"{age(worker.seen)} ago",
            mebibytes(worker.memory),
            worker.version or "",
            "silent" if silent else _state(worker),
            style="yellow" if silent else None,
        )
    return table


def _state(worker: WorkerStatus) -> str:
    """What is not as usual."""
    if worker.ordered is not None:
        return f"asked to {ORDERED.get(worker.ordered, worker.ordered)}"
    return "" if worker.state in (None, WorkerState.WORKING) else str(worker.state)


def running_jobs(statuses: Sequence[tuple[str, WorkerStatus]], *, several: bool = False) -> FittingTable | None:
    """The running jobs of the workers' last heartbeats, with their ages by now. None if there are none."""
    table = _table(
        several,
        Column("Running", 0),
        Column("For", 0, number=True),
        Column("Job", 0, whole=False),
        Column("Queue", 2, whole=False),
        Column("Worker", 1, whole=False),
    )
    for connection, worker in statuses:
        for job in worker.jobs:
            running = age(job.seconds + worker.seen)
            table.add(*_prefix(several, connection), str(job.id), running, job.name, job.queue, worker.name)
    return table if table.rows else None
