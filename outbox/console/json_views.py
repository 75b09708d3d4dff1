"""Values for JSON documents. Ids are canonical UUIDs, times ISO 8601 in UTC, durations seconds.

Payloads and headers are the stored text, because it may not be JSON.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from outbox.drivers.filters import FailedGroup
from outbox.drivers.pauses import Pause
from outbox.drivers.values import FailedJob, FinishedJob, QueueCounts, StoredJob, WorkerStatus
from outbox.encrypted_jobs import token_of
from outbox.relay.route import relayed_connection

Document = dict[str, Any]


def timestamp(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def failed_job(job: FailedJob) -> Document:
    return {
        "id": str(job.id),
        "connection": job.connection,
        "queue": job.queue,
        "name": job.name,
        "priority": job.priority,
        "attempts": job.attempts,
        "failed_at": timestamp(job.failed_at),
        "exception": {
            "type": job.failure.type,
            "message": job.failure.message,
            "traceback": job.failure.traceback,
        },
        "payload": job.payload,
        "encrypted": token_of(job.payload) is not None,
        "headers": job.headers,
    }


def failed_group(group: FailedGroup) -> Document:
    """``at_least`` is there only where there are more jobs than were counted."""
    return {
        "connection": group.connection,
        "name": group.name,
        "exception": group.error,
        "count": group.count,
        "first_failed_at": timestamp(group.first),
        "last_failed_at": timestamp(group.last),
        "fingerprint": group.fingerprint or None,
        **({"at_least": True} if group.at_least else {}),
    }


def live_job(connection: str, job: StoredJob) -> Document:
    return {
        "id": str(job.id),
        "connection": connection,
        "queue": job.queue,
        "on_its_way_to": relayed_connection(job.queue),
        "name": job.name,
        "state": job.state.value,
        "priority": job.priority,
        "attempts": job.attempts,
        "created_at": timestamp(job.created_at),
        "available_at": timestamp(job.available_at),
        "reserved_until": timestamp(job.reserved_until),
        "last_error": job.last_error,
        "last_error_at": timestamp(job.last_error_at),
        "payload": job.payload,
        "encrypted": token_of(job.payload) is not None,
        "headers": job.headers,
    }


def finished_job(connection: str, job: FinishedJob) -> Document:
    return {
        "id": str(job.id),
        "connection": connection,
        "queue": job.queue,
        "name": job.name,
        "state": "finished",
        "priority": job.priority,
        "attempts": job.attempts,
        "finished_at": timestamp(job.finished_at),
        "kept_until": timestamp(job.kept_until),
        "seconds": round(job.seconds, 6),
        "progress": job.progress,
        "progress_text": job.progress_text,
        "result": job.value,
        "payload": job.payload,
        "headers": job.headers,
    }


def queue(connection: str, counts: QueueCounts) -> Document:
    """``counted_seconds_ago`` and ``at_least`` are there only where numbers are not exact."""
    document = {
        "connection": connection,
        "queue": counts.queue,
        "on_its_way_to": relayed_connection(counts.queue),
        "ready": counts.ready,
        "delayed": counts.delayed,
        "retrying": counts.retrying,
        "reserved": counts.reserved,
        "parked": counts.parked,
        "failed": counts.failed,
        "oldest_seconds": None if counts.oldest is None else round(counts.oldest, 3),
        "paused": counts.paused,
    }
    if counts.age is not None:
        document["counted_seconds_ago"] = round(counts.age, 3)
    if counts.at_least:
        document["at_least"] = True
    return document


def pause(connection: str, pause: Pause) -> Document:
    return {
        "connection": connection,
        "kind": pause.kind.value,
        "name": pause.name,
        "reason": pause.reason,
        "by": pause.by,
        "paused_at": None if pause.paused_at is None else timestamp(pause.paused_at),
        "until": None if pause.until is None else timestamp(pause.until),
    }


def worker(connection: str, status: WorkerStatus) -> Document:
    return {
        "connection": connection,
        "id": status.id.hex(),
        "name": status.name,
        "host": status.host,
        "pid": status.pid,
        "queues": status.queues.split(","),
        "concurrency": status.concurrency,
        "running": status.running,
        "processed": status.processed,
        "failed": status.failed,
        "started_at": timestamp(status.started_at),
        "seen_seconds": round(status.seen, 3),
        "state": status.state,
        "ordered": status.ordered,
        "memory_bytes": status.memory,
        "version": status.version,
        "jobs": [
            {
                "id": str(job.id),
                "name": job.name,
                "queue": job.queue,
                "running_seconds": round(job.seconds + status.seen, 3),
            }
            for job in status.jobs
        ],
    }
