"""The rows of worker processes, and when each was last heard of."""

from __future__ import annotations

import json
from types import NoneType
from typing import Any

from outbox.drivers.base import WorkerStatus
from outbox.drivers.redis.keys import WORKERS
from outbox.drivers.redis.packing import microseconds, moment, text
from outbox.drivers.redis.scripting import Script
from outbox.drivers.redis.store import Store
from outbox.drivers.running_jobs import dump_running, load_running

_BEAT, _WORKERS, _FORGET = (
    Script("beat", returns=NoneType),
    Script("workers", returns=list),
    Script("forget_workers", returns=int),
)


async def beat(store: Store, worker: WorkerStatus) -> None:
    row = {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "queues": worker.queues,
        "concurrency": worker.concurrency,
        "running": worker.running,
        "processed": worker.processed,
        "failed": worker.failed,
    }
    if worker.jobs:
        row["jobs"] = dump_running(worker.jobs)
    await store.do(_BEAT(WORKERS, worker.id, json.dumps(row)))


async def retire(store: Store, worker_id: bytes) -> None:
    await store.do(_FORGET(WORKERS, 0, worker_id))


async def forget_workers(store: Store, unseen_for: float) -> int:
    return int(await store.do(_FORGET(WORKERS, microseconds(unseen_for))))


async def list_workers(store: Store) -> list[WorkerStatus]:
    rows = await store.do(_WORKERS(WORKERS))
    return [_status(*row) for row in sorted(rows, key=lambda row: (row[2].partition(b"\n")[0], row[0]))]


def _status(worker_id: bytes, unseen: int, row: bytes) -> WorkerStatus:
    started_at, _, values = text(row).partition("\n")
    known: dict[str, Any] = json.loads(values)
    jobs = load_running(known.pop("jobs", None))
    seen = max(0.0, unseen / 1_000_000)
    return WorkerStatus(id=worker_id, started_at=moment(started_at), seen=seen, jobs=jobs, **known)
