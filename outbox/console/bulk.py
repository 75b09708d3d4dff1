"""``bulk``: cancel, retry, forget or move all jobs that match a filter."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import click

from outbox.bulk import no_operation, operations_of
from outbox.client_state import current_client
from outbox.console.command import actor, on_connection
from outbox.console.command import queue as queue_name
from outbox.console.confirmation import confirm, yes_option
from outbox.console.formatting import counted, line
from outbox.console.operations import described, document_of
from outbox.console.output import Output
from outbox.console.time_spans import Since
from outbox.drivers.base import Driver
from outbox.drivers.bulk import BulkFilter, BulkOperation, BulkPreview, BulkRequest, OperationStore, Verb
from outbox.drivers.values import FailedJob, StoredJob
from outbox.wakeups.announce import announce_operation

_TEXTS = ("queue", "name", "key", "error", "group")
_BETWEEN_LOOKS = 0.5
"""Seconds between two looks of ``--wait``."""


@click.group()
def bulk() -> None:
    """Cancel, retry, forget or move all jobs that match a filter. Workers do it, 1,000 jobs a transaction.

    It says how many jobs match before it asks. `outbox operations` shows how far it is, and stops it.
    """


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass the filter to the command as ``matching``."""

    @click.option("--queue", type=queue_name, help="Only jobs of this queue.")
    @click.option("--name", metavar="NAME", help="Only jobs of this name, as `outbox jobs` shows it.")
    @click.option("--key", metavar="KEY", help="Only jobs with this ordering, concurrency or fair key: customer:7.")
    @click.option("--error", metavar="TEXT", help="Only with this in the last error; of failed jobs also its type.")
    @click.option("--since", type=Since(), metavar="TIME", help="Only those dispatched, or failed, since: 2h, a date.")
    @click.option("--older-than", type=Since(), metavar="TIME", help="Only those before that: 30m, 3d, or a date.")
    @click.option("--group", metavar="FINGERPRINT", help="Only this group of `outbox failed --groups`.")
    @click.option("--all", "everything", is_flag=True, help="All jobs, where no other option chooses some.")
    @click.option("--preview", is_flag=True, help="Say how many jobs match, show five, and do nothing.")
    @click.option("--wait", is_flag=True, help="Take part in the work, and return when it is done.")
    @yes_option
    @functools.wraps(function)
    def choose(*args: Any, everything: bool, **given: Any) -> Any:
        texts = {name: given.pop(name) for name in (*_TEXTS, "since", "older_than")}
        matching = BulkFilter(**texts)
        if everything is not matching.is_any:
            raise click.UsageError(
                "choose jobs by --queue, --name, --key, --error, --group, --since or --older-than, or give --all"
            )
        return function(*args, matching=matching, **given)

    return choose


def _command(verb: Verb, text: str) -> None:
    async def work(
        driver: Driver,
        output: Output,
        matching: BulkFilter,
        preview: bool,
        wait: bool,
        yes: bool,
        to: str | None = None,
    ) -> int:
        request = BulkRequest(verb, matching, to).checked()
        return await _do(driver, output, request, preview=preview, wait=wait, yes=yes)

    work.__doc__ = text
    work.__name__ = verb.value
    made: Callable[..., Any] = on_connection(work)
    if verb is Verb.MOVE:
        made = click.option("--to", type=queue_name, required=True, help="The queue to move them to.")(made)
    bulk.command(verb.value, help=text)(_options(made))


_command(Verb.CANCEL, "Remove live jobs for good. A running one is stopped, and is no failure.")
_command(Verb.RETRY, "Put failed jobs back. They keep their ids, and no attempts are counted.")
_command(Verb.FORGET, "Remove failed jobs for good.")
_command(Verb.MOVE, "Put live jobs into another queue. A running one stays where it is.")


async def _do(driver: Driver, output: Output, request: BulkRequest, *, preview: bool, wait: bool, yes: bool) -> int:
    store = operations_of(driver)
    found = await store.preview(request)
    if preview or not (found.count or found.at_least):
        _show(output, driver, request, found)
        return 0
    if not output.as_json:
        _show(output, driver, request, found)
    confirm(f"{_said(request, found)} of the connection {driver.name}?", yes=yes, what="this changes many jobs")
    made = await store.start(request, actor())
    announce_operation(current_client(), driver.name)
    if wait:
        made = await _work_off(store, made)
    output.result({"connection": driver.name, "operation": document_of(made)}, described(made))
    if not wait and not output.as_json:
        output.note(f"workers do it: `outbox operations show {made.id}` says how far it is")
    return 0


async def _work_off(store: OperationStore, made: BulkOperation) -> BulkOperation:
    while True:
        due = await store.work_off()
        found = await store.get(made.id)
        if found is None:
            raise no_operation(made.id)
        if found.state.has_ended:
            return found
        await asyncio.sleep(_BETWEEN_LOOKS if due is None else min(due, _BETWEEN_LOOKS))


def _show(output: Output, driver: Driver, request: BulkRequest, found: BulkPreview) -> None:
    if output.as_json:
        output.document(
            {
                "connection": driver.name,
                "verb": request.verb.value,
                "matching": request.matching.given(),
                "to": request.to,
                "count": found.count,
                "at_least": found.at_least,
                "job_ids": [str(job.id) for job in found.sample],
            }
        )
        return
    least = "At least " if found.at_least else ""
    output.print(f"{least}{counted(found.count, _noun(request))} {'matches' if found.count == 1 else 'match'}.")
    for job in found.sample:
        output.print(f"  {_sampled(job)}")


def _sampled(job: StoredJob | FailedJob) -> str:
    error = job.last_error if isinstance(job, StoredJob) else job.failure.summary
    return f"{job.id}  {line(job.queue)}  {line(job.name)}" + ("" if error is None else f"  {line(error, 80)}")


def _noun(request: BulkRequest) -> str:
    return "failed job" if request.verb.of_failed else "live job"


def _said(request: BulkRequest, found: BulkPreview) -> str:
    """The beginning of the question."""
    least = "at least " if found.at_least else ""
    to = f" to {request.to}" if request.to is not None else ""
    return f"{request.verb.value.capitalize()} {least}{counted(found.count, _noun(request))}{to}"
