"""Values as JSON. Ids are canonical UUIDs, times ISO 8601 in UTC, durations seconds. Payloads and headers are the text
that is stored, because it may not be JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from outbox.drivers.base import FailedJob, QueueCounts, WorkerStatus

Document = dict[str, Any]


def moment(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def failed_job(job: FailedJob) -> Document:
    return {
        "id": str(job.id),
        "connection": job.connection,
        "queue": job.queue,
        "name": job.name,
        "priority": job.priority,
        "attempts": job.attempts,
        "failed_at": moment(job.failed_at),
        "exception": {
            "type": job.failure.type,
            "message": job.failure.message,
            "traceback": job.failure.traceback,
        },
        "payload": job.payload,
        "headers": job.headers,
    }


def queue(counts: QueueCounts) -> Document:
    return {
        "queue": counts.queue,
        "ready": counts.ready,
        "delayed": counts.delayed,
        "reserved": counts.reserved,
        "failed": counts.failed,
        "oldest_seconds": None if counts.oldest is None else round(counts.oldest, 3),
        "paused": counts.paused,
    }


def worker(status: WorkerStatus) -> Document:
    return {
        "id": status.id.hex(),
        "name": status.name,
        "host": status.host,
        "pid": status.pid,
        "queues": status.queues.split(","),
        "concurrency": status.concurrency,
        "running": status.running,
        "processed": status.processed,
        "failed": status.failed,
        "started_at": moment(status.started_at),
        "seen_seconds": round(status.seen, 3),
    }
