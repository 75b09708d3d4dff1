"""``operations``: bulk operations, how far they are, and their stop."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from outbox.bulk import no_operation, operations_of
from outbox.console.command import ListedByDefault, actor, looking_at_connection, on_connection
from outbox.console.formatting import counted, line
from outbox.console.json_views import timestamp
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.drivers.bulk import BulkOperation
from outbox.ids import JobId


@click.group(cls=ListedByDefault, invoke_without_command=True)
def operations() -> None:
    """Show bulk operations, and stop them. Without a command: list, with its options. `outbox bulk` begins one."""


@operations.command("list")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="How many.")
@click.option("--before", metavar="ID", type=click.UUID, help="Continue after a page, with its last id.")
@looking_at_connection
async def list_operations(driver: Driver, output: Output, limit: int, before: UUID | None) -> None:
    """The latest bulk operations, the newest first."""
    found = await operations_of(driver).latest(limit, None if before is None else JobId(int=before.int))
    text = "\n".join(map(described, found)) or "No bulk operations."
    output.result({"connection": driver.name, "operations": [document_of(each) for each in found]}, text)


@operations.command()
@click.argument("operation_id", metavar="ID", type=click.UUID)
@looking_at_connection
async def show(driver: Driver, output: Output, operation_id: UUID) -> None:
    """How far the operation ID is."""
    found = await operations_of(driver).get(JobId(int=operation_id.int))
    if found is None:
        raise no_operation(JobId(int=operation_id.int))
    document = document_of(found)
    text = "\n".join(f"{name:<12}{line(str(value))}" for name, value in document.items() if value not in (None, {}))
    output.result({"connection": driver.name, "operation": document}, text)


@operations.command()
@click.argument("operation_id", metavar="ID", type=click.UUID)
@on_connection
async def stop(driver: Driver, output: Output, operation_id: UUID) -> int:
    """End the operation ID after the jobs that it has done."""
    store, key = operations_of(driver), JobId(int=operation_id.int)
    stopped = await store.stop(key, actor())
    found = stopped or await store.get(key)
    if found is None:
        raise no_operation(key)
    text = described(found) if stopped is not None else f"It had ended already. {described(found)}"
    output.result({"connection": driver.name, "stopped": stopped is not None, "operation": document_of(found)}, text)
    return 0 if stopped is not None else 1


def described(operation: BulkOperation) -> str:
    """One line, and another one where jobs were refused."""
    request = operation.request
    which = ", ".join(f"{name} {value}" for name, value in request.matching.given().items()) or "all"
    to = f" to {request.to}" if request.to is not None else ""
    of = "" if operation.total is None else f" of {operation.total:,}"
    text = (
        f"{operation.id}  {operation.state.value:<8}  {request.verb.value}{to}: {line(which)}; "
        f"{counted(operation.done, 'job')}{of} done"
    )
    if operation.refused:
        text += f", {operation.refused:,} refused\n  {line(operation.reason or '', 300)}"
    return text


def document_of(operation: BulkOperation) -> dict[str, Any]:
    return {
        "id": str(operation.id),
        "verb": operation.request.verb.value,
        "matching": operation.request.matching.given(),
        "to": operation.request.to,
        "by": operation.by,
        "state": operation.state.value,
        "total": operation.total,
        "done": operation.done,
        "refused": operation.refused,
        "reason": operation.reason,
        "created_at": timestamp(operation.created_at),
        "started_at": timestamp(operation.started_at),
        "finished_at": timestamp(operation.finished_at),
    }
