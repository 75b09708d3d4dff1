"""The jobs that a worker runs, as its heartbeat writes them: a JSON list of ``[id, name, queue, seconds]``."""

from __future__ import annotations

import json
from collections.abc import Sequence

from outbox.drivers.values import RunningJob
from outbox.ids import JobId


def dump_running(jobs: Sequence[RunningJob]) -> str | None:
    if not jobs:
        return None
    return json.dumps([[job.id.hex, job.name, job.queue, round(job.seconds, 3)] for job in jobs])


def load_running(text: str | None) -> tuple[RunningJob, ...]:
    """What is not as `dump_running` writes it is left out: other tools may write rows as well."""
    try:
        rows = json.loads(text) if text else []
        return tuple(RunningJob(JobId(hex=row[0]), str(row[1]), str(row[2]), float(row[3])) for row in rows)
    except (ValueError, TypeError, LookupError, AttributeError):
        return ()
