"""What every driver has for worker processes."""

from __future__ import annotations

from typing import Protocol

from outbox.drivers.values import WorkerOrder, WorkerStatus


class WorkerRegistry(Protocol):
    """Which worker processes there are."""

    async def heartbeat(self, worker: WorkerStatus) -> WorkerOrder | None:
        """Write the worker's row, with the store's time as its heartbeat. Return what was ordered since the last one:
        each order once."""

    async def order(self, worker_id: bytes, order: WorkerOrder) -> bool:
        """Ask a worker process to do something; False where there is no such worker. A later order replaces one of
        which it has not heard yet."""

    async def deregister(self, worker_id: bytes) -> None:
        """Remove the worker's row."""

    async def all(self) -> list[WorkerStatus]:
        """Every worker process that has a row, longest running first."""

    async def forget(self, unseen_for: float) -> int:
        """Remove rows of processes not heard of for so many seconds; their jobs need no help, leases end by
        themselves."""
