"""``batches``: list, show, cancel and retry batches."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import click

from outbox.batching import cancel_on, no_batch, policies_of, retry_on
from outbox.console.command import ListedByDefault, looking_at_connection, on_connection
from outbox.console.formatting import counted, line
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.drivers.values import BatchStatus
from outbox.ids import JobId


@click.group(cls=ListedByDefault, invoke_without_command=True)
def batches() -> None:
    """Look at batches, cancel them, or retry their failures. Without a command: list, with its options."""


@batches.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@looking_at_connection
async def list_batches(driver: Driver, output: Output, limit: int) -> None:
    """The latest batches, the newest first."""
    found = await policies_of(driver).batches(limit)
    text = "\n".join(map(_line, found)) or "No batches."
    output.result({"connection": driver.name, "batches": [_document(each) for each in found]}, text)


@batches.command()
@click.argument("batch_id", metavar="ID", type=click.UUID)
@looking_at_connection
async def show(driver: Driver, output: Output, batch_id: UUID) -> None:
    """How far the batch ID is."""
    status = await _found(driver, batch_id)
    document = _document(status)
    text = "\n".join(f"{name:<15}{line(str(value))}" for name, value in document.items() if value is not None)
    output.result({"connection": driver.name, **document}, text)


@batches.command()
@click.argument("batch_id", metavar="ID", type=click.UUID)
@on_connection
async def cancel(driver: Driver, output: Output, batch_id: UUID) -> int:
    """Cancel the batch ID: remove its jobs, and dispatch its `finally_`."""
    await _found(driver, batch_id)
    cancelled = await cancel_on(driver, JobId(int=batch_id.int))
    text = "Cancelled." if cancelled else "It has ended, or was cancelled already."
    output.result({"connection": driver.name, "cancelled": cancelled}, text)
    return 0 if cancelled else 1


@batches.command()
@click.argument("batch_id", metavar="ID", type=click.UUID)
@on_connection
async def retry(driver: Driver, output: Output, batch_id: UUID) -> None:
    """Put the failed jobs of the batch ID back, which opens it again."""
    await _found(driver, batch_id)
    retried = await retry_on(driver, JobId(int=batch_id.int))
    output.result({"connection": driver.name, "retried": retried}, f"Retried {counted(retried, 'failed job')}.")


async def _found(driver: Driver, batch_id: UUID) -> BatchStatus:
    status = await policies_of(driver).batch(JobId(int=batch_id.int))
    if status is None:
        raise no_batch(batch_id)
    return status


def _document(status: BatchStatus) -> dict[str, Any]:
    return {
        "id": str(status.id),
        "name": status.name,
        "state": status.state,
        "total": status.total,
        "failed": status.failed,
        "outstanding": status.outstanding,
        "allow_failures": status.allow_failures,
        "parent": None if status.parent is None else str(status.parent),
        "created_at": status.created_at.isoformat(),
        "finished_at": _moment(status.finished_at),
        **({"failed_at_least": True} if status.failed_at_least else {}),
        **({"outstanding_at_least": True} if status.outstanding_at_least else {}),
    }


def _moment(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()


def _line(status: BatchStatus) -> str:
    left = f"{status.outstanding:,}{' or more' if status.outstanding_at_least else ''}"
    failed = f"{status.failed:,}{' or more' if status.failed_at_least else ''}"
    counts = f"{status.total:,} jobs, {left} left, {failed} failed"
    return f"{status.id}  {status.state:<9}  {counts}  {status.name}"
