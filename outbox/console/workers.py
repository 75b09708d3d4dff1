"""``workers``: the worker processes and their running jobs, and what they are asked to do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from outbox.console import json_views, tables
from outbox.console.command import on_connection
from outbox.console.connections import Stores, on_connections
from outbox.console.formatting import line
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.drivers.values import WorkerOrder, WorkerStatus

_SHORTEST_ID = 8
_SAID = {
    WorkerOrder.QUIET: "will claim nothing until `outbox workers resume`",
    WorkerOrder.RESUME: "will claim again",
    WorkerOrder.STOP: "will stop when its running jobs have ended, or after its time of grace",
}


def _alone(run: Callable[..., None]) -> Callable[..., None]:
    """``run`` where no command follows."""

    @functools.wraps(run)
    def call(**parameters: Any) -> None:
        following = click.get_current_context().invoked_subcommand
        if following is None:
            run(**parameters)
        elif any(parameters.values()):
            raise click.UsageError(f"give the options after `{following}`")

    return call


@click.group(invoke_without_command=True)
@_alone
@on_connections
async def workers(stores: Stores, output: Output) -> None:
    """List the worker processes, the oldest first, and at most 200 running jobs of each.

    A worker is silent after a minute without a heartbeat.
    """
    answers = await stores.ask(lambda driver: driver.workers.all())
    statuses = [(name, status) for name, each in answers.items() for status in each]
    if output.as_json:
        output.document(stores.document(workers=[json_views.worker(*each) for each in statuses]))
    elif not statuses:
        output.print("No workers.")
    else:
        now = next(iter((await stores.ask(lambda driver: driver.now())).values()))
        output.print(tables.workers(statuses, now, several=stores.several))
        running = tables.running_jobs(statuses, several=stores.several)
        if running is not None:
            output.print("", running)


@workers.command()
@click.argument("ids", metavar="WORKER...", nargs=-1, required=True)
@on_connection
async def quiet(driver: Driver, output: Output, ids: Sequence[str]) -> int:
    """Have worker processes claim nothing; what runs goes on. WORKER is a name, or 8 characters of an id or more."""
    return await _order(driver, output, ids, WorkerOrder.QUIET)


@workers.command()
@click.argument("ids", metavar="WORKER...", nargs=-1, required=True)
@on_connection
async def resume(driver: Driver, output: Output, ids: Sequence[str]) -> int:
    """Have quiet worker processes claim again."""
    return await _order(driver, output, ids, WorkerOrder.RESUME)


@workers.command()
@click.argument("ids", metavar="WORKER...", nargs=-1, required=True)
@on_connection
async def stop(driver: Driver, output: Output, ids: Sequence[str]) -> int:
    """Stop worker processes, as TERM does. A supervisor, systemd or Kubernetes starts others."""
    return await _order(driver, output, ids, WorkerOrder.STOP)


async def _order(driver: Driver, output: Output, typed: Sequence[str], order: WorkerOrder) -> int:
    there = await driver.workers.all()
    chosen = [(each, _chosen(each, there)) for each in typed]
    asked, missing = [], []
    for text, status in chosen:
        if status is not None and await driver.workers.order(status.id, order):
            asked.append(status)
        else:
            missing.append(text)
    document = {"connection": driver.name, "order": order.value, "workers": [each.id.hex() for each in asked]}
    told = "\n".join(f"{line(each.name)} {_SAID[order]}." for each in asked) or "Nothing was asked of any worker."
    output.result(document | {"missing": missing}, told)
    if missing:
        output.note(f"outbox: there is no worker {', '.join(map(line, missing))}: `outbox workers` lists them")
    return 1 if missing else 0


def _chosen(typed: str, there: Sequence[WorkerStatus]) -> WorkerStatus | None:
    """
    Raises:
        click.UsageError: several workers are meant.
    """
    digits = typed.strip().replace("-", "").lower()
    found = [
        each
        for each in there
        if each.name == typed or (len(digits) >= _SHORTEST_ID and each.id.hex().startswith(digits))
    ]
    if len(found) > 1:
        raise click.UsageError(f"{typed} may mean any of: {', '.join(each.id.hex() for each in found)}")
    return found[0] if found else None
