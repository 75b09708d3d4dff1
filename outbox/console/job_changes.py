"""``reschedule`` and ``change``: when, where and how urgently waiting jobs run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from outbox.console.command import on_connection
from outbox.console.command import queue as queue_type
from outbox.console.dispatch import Delay
from outbox.console.formatting import counted, line
from outbox.console.id_lookup import look_up
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.drivers.values import JobChange
from outbox.errors import InvalidOption, JobNotWaiting
from outbox.job_changes import change_job
from outbox.options import as_delay


class Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic from click 8.2 on
    """A date or time in ISO 8601, by default in UTC."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip())
        except ValueError:
            self.fail(f"{value!r} is not a time like 2026-01-31T12:00 or 2026-01-31T12:00+01:00", param, ctx)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--at", type=Moment(), metavar="TIME", help="A time in ISO 8601, by default in UTC.")
@click.option("--delay", type=Delay(), metavar="TIME", help="From now: seconds, or 90s, 5m, 2h, 1d. 0: now.")
@on_connection
async def reschedule(
    driver: Driver, output: Output, job_ids: Sequence[str], at: datetime | None, delay: float | None
) -> int:
    """Have waiting jobs run at another time. A job that runs is left as it is."""
    if (at is None) == (delay is None):
        raise click.UsageError("give --at or --delay, one of the two")
    try:
        due = as_delay(delay if at is None else at)  # type: ignore[arg-type]
    except InvalidOption as error:
        raise click.UsageError(str(error)) from error
    wanted = JobChange(at=due) if isinstance(due, datetime) else JobChange(delay=due)
    return await _change(driver, output, job_ids, wanted, "rescheduled")


@click.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--queue", type=queue_type, help="The new queue.")
@click.option("--priority", type=click.IntRange(0, 9), help="The new priority: 0 is first.")
@on_connection
async def change(
    driver: Driver, output: Output, job_ids: Sequence[str], queue: str | None, priority: int | None
) -> int:
    """Give waiting jobs another queue or priority. A job that runs is left as it is."""
    if queue is None and priority is None:
        raise click.UsageError("give --queue, --priority, or both")
    return await _change(driver, output, job_ids, JobChange(queue, priority), "changed")


async def _change(driver: Driver, output: Output, typed: Sequence[str], wanted: JobChange, done: str) -> int:
    """Each job by itself: those that cannot be changed keep no other back."""
    chosen = await look_up(typed, driver.jobs.find)
    changed, refused = [], {}
    for job_id in chosen.ids:
        try:
            if await change_job(driver, job_id, wanted):
                changed.append(job_id)
        except JobNotWaiting as error:
            refused[job_id] = str(error)
    missing = chosen.missing([*changed, *refused])
    ids = [str(job_id) for job_id in changed]
    reasons = {str(job_id): reason for job_id, reason in refused.items()}
    document = {"connection": driver.name, done: len(ids), "job_ids": ids, "refused": reasons, "missing": missing}
    output.result(document, f"{done.capitalize()} {counted(len(ids), 'job')}.")
    for reason in reasons.values():
        output.note(f"outbox: {line(reason)}")
    if missing:
        those = ", ".join(line(one) for one in missing)
        output.note(f"outbox: there is no live job {those}: it ended, failed, or never was")
    return 1 if missing or refused else 0
