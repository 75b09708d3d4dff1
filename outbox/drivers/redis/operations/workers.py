"""The rows of worker processes, and when each was last heard of."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import microseconds, moment, text
from outbox.drivers.redis.keys import WORKERS
from outbox.drivers.redis.script import Script
from outbox.drivers.running_jobs import dump_running, load_running
from outbox.drivers.values import WorkerOrder, WorkerStatus

_TEXTS = ("name", "host", "queues")
_NUMBERS = ("pid", "concurrency", "running", "processed", "failed")
_BEAT, _WORKERS, _FORGET, _ORDER = (
    Script("heartbeat", returns=bytes),
    Script("workers", returns=list),
    Script("forget_workers", returns=int),
    Script("order_worker", returns=int),
)


class Workers:
    """`WorkerRegistry`. ``on_heartbeat`` is awaited after each one."""

    def __init__(self, store: Store, on_heartbeat: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._on_heartbeat = on_heartbeat

    async def heartbeat(self, worker: WorkerStatus) -> WorkerOrder | None:
        row = {
            "name": worker.name,
            "host": worker.host,
            "pid": worker.pid,
            "queues": worker.queues,
            "concurrency": worker.concurrency,
            "running": worker.running,
            "processed": worker.processed,
            "failed": worker.failed,
            "state": worker.state,
            "memory": worker.memory,
            "version": worker.version,
        }
        if worker.jobs:
            row["jobs"] = dump_running(worker.jobs)
        order = text(await self._store.do(_BEAT(WORKERS, worker.id, json.dumps(row))))
        await self._on_heartbeat()
        return WorkerOrder(order) if order in set(WorkerOrder) else None

    async def order(self, worker_id: bytes, order: WorkerOrder) -> bool:
        return bool(await self._store.do(_ORDER(WORKERS, worker_id, order.value)))

    async def deregister(self, worker_id: bytes) -> None:
        await self._store.do(_FORGET(WORKERS, 0, worker_id))

    async def forget(self, unseen_for: float) -> int:
        return int(await self._store.do(_FORGET(WORKERS, microseconds(unseen_for))))

    async def all(self) -> list[WorkerStatus]:
        rows = await self._store.do(_WORKERS(WORKERS))
        return [_status(*row) for row in sorted(rows, key=lambda row: (row[2].partition(b"\n")[0], row[0]))]


def _status(worker_id: bytes, unseen: int, row: bytes, order: bytes) -> WorkerStatus:
    """A row that another program wrote must not hide all others."""
    started_at, _, written = text(row).partition("\n")
    try:
        values = json.loads(written)
    except (ValueError, RecursionError):
        values = None
    known: dict[str, Any] = values if isinstance(values, dict) else {}
    texts = {name: str(known.get(name, "")) for name in _TEXTS}
    numbers = {name: value if isinstance(value := known.get(name), int) else 0 for name in _NUMBERS}
    jobs = load_running(known.get("jobs"))
    memory = value if isinstance(value := known.get("memory"), int) else None
    news: dict[str, Any] = {name: str(known[name]) for name in ("state", "version") if known.get(name) is not None}
    news |= {"memory": memory, "ordered": text(order) or None}
    seen = max(0.0, unseen / 1_000_000)
    return WorkerStatus(id=worker_id, started_at=moment(started_at), seen=seen, jobs=jobs, **news, **texts, **numbers)  # type: ignore[arg-type]
