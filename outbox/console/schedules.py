"""``schedule list | show | run | pause | resume | backfill``."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from outbox import registry
from outbox.client_state import current_client, current_settings
from outbox.connections import open_driver
from outbox.console.command import Refused, connection_name, json_option, recorded
from outbox.console.confirmation import confirm, yes_option
from outbox.console.fitting_table import Column, FittingTable
from outbox.console.formatting import ago, counted, due, line
from outbox.console.json_views import Document, timestamp
from outbox.console.output import Output
from outbox.console.suggestions import suggestion
from outbox.drivers.base import Driver
from outbox.drivers.schedules import ScheduleStore, StoredSchedule, Templates
from outbox.policies.timetable import Cron, ticks_between
from outbox.schedules import declared_schedules, schedules_of, stored_in
from outbox.settings import Settings
from outbox.telling_workers import pass_on_policy_news

_SHOWN_TICKS = 5
MOST_BACKFILLED = 1_000

Work = Callable[..., Awaitable[int | None]]


@click.group(no_args_is_help=True)
def schedule() -> None:
    """Look after schedules: in code by @schedule, or added with outbox.schedules."""


def _on_schedules(work: Work) -> Callable[..., None]:
    """A command that awaits ``work(store, output, …)`` with the schedules of ``--connection``."""

    @click.option(
        "--connection",
        type=connection_name,
        metavar="NAME",
        help="Schedules of jobs for it. Default: QUEUE_CONNECTION.",
    )
    @json_option
    @functools.wraps(work)
    def run(connection: str | None, as_json: bool, **parameters: Any) -> None:
        settings = Settings.load()
        driver = open_driver(settings, stored_in(settings, connection or settings.connection))
        pass_on_policy_news(current_client(), driver)
        with recorded(driver.name, parameters):
            code = asyncio.run(_run(work, driver, Output(as_json), parameters))
        click.get_current_context().exit(code or 0)

    return run


async def _run(work: Work, driver: Driver, output: Output, parameters: dict[str, Any]) -> int | None:
    try:
        return await work(schedules_of(driver), output, **parameters)
    finally:
        await driver.close()


def _templates() -> Templates:
    """Of what this code declares. Without its modules, jobs are made as they were when a worker last stored them."""
    settings = current_settings()
    registry.import_jobs(settings.jobs)
    return {each.name: each.template for each in declared_schedules(settings)}


def _state(schedule: StoredSchedule, known: frozenset[str]) -> str:
    if schedule.paused_at is not None:
        return "paused"
    if schedule.declaration is not None and schedule.name not in known:
        return "vanished"
    return "active" if schedule.next_at is not None else "over"


def _known() -> frozenset[str]:
    return frozenset(_templates())


def _document(schedule: StoredSchedule, known: frozenset[str]) -> Document:
    definition = schedule.definition
    job = definition.job
    return {
        "name": schedule.name,
        "state": _state(schedule, known),
        "declared": schedule.declaration is not None,
        "when": definition.when,
        "tz": definition.tz,
        "words": definition.timetable.words(),
        "misfire": definition.misfire.value,
        "grace": definition.grace,
        "overlap": definition.overlap.value,
        "jitter": definition.jitter,
        "connection": definition.connection,
        "job": None if job is None else job.name,
        "payload": None if job is None else job.payload,
        "next_at": timestamp(schedule.next_at),
        "last_tick": timestamp(schedule.last_tick),
        "paused_at": timestamp(schedule.paused_at),
    }


async def _get(store: ScheduleStore, name: str) -> StoredSchedule:
    """
    Raises:
        Refused: there is none of this name.
    """
    found = await store.get(name)
    if found is None:
        names = [each.name for each in await store.list()]
        raise Refused(f"there is no schedule {line(name)}{suggestion(name, names)}")
    return found


class Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic from click 8.2 on
    """ISO 8601, as ``2026-03-02`` or ``2026-03-02T07:00:00+01:00``."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time such as 2026-03-02 or 2026-03-02T07:00", param, ctx)


@schedule.command(name="list")
@_on_schedules
async def list_schedules(store: ScheduleStore, output: Output) -> None:
    """List the schedules by name.

    One that no code in OUTBOX_JOBS declares any more is vanished: it stays, and does not tick.
    """
    found, known = await store.list(), _known()
    if output.as_json:
        output.document({"schedules": [_document(each, known) for each in found]})
        return
    if not found:
        output.print("No schedules.")
        return
    table = FittingTable(
        [
            Column("Name", 0),
            Column("State", 1),
            Column("When", 2, whole=False),
            Column("Next", 1),
            Column("Last", 3),
            Column("Job", 4, whole=False),
        ]
    )
    for each in found:
        state = _state(each, known)
        table.add(
            each.name,
            state,
            _when(each),
            due(each.next_at, each.now) if each.next_at is not None and state == "active" else "",
            "" if each.last_tick is None else ago(each.last_tick, each.now),
            "" if each.definition.job is None else each.definition.job.name,
            style="yellow" if state == "vanished" else None,
        )
    output.print(table)


def _when(schedule: StoredSchedule) -> str:
    zone = schedule.definition.tz
    return schedule.definition.when + (f" {zone}" if isinstance(schedule.definition.timetable, Cron) else "")


@schedule.command()
@click.argument("name")
@_on_schedules
async def show(store: ScheduleStore, output: Output, name: str) -> None:
    """Show all of schedule NAME, in words, with its next five ticks."""
    found, known = await _get(store, name), _known()
    ticks = _next_ticks(found)
    document = _document(found, known)
    if output.as_json:
        output.document(document | {"next": [timestamp(each) for each in ticks]})
        return
    zone = ZoneInfo(found.definition.tz)
    rows = [(title, line(str(document[title]))) for title in document if document[title] not in (None, "")]
    output.print(*(f"{title:<11} {text}" for title, text in rows if title != "next_at"))
    if ticks:
        output.print("next")
        output.print(*(f"  {_in_words(each, zone)}, {due(each, found.now)}" for each in ticks))


def _next_ticks(schedule: StoredSchedule) -> tuple[datetime, ...]:
    ticks: tuple[datetime, ...] = ()
    tick = schedule.next_at
    while tick is not None and len(ticks) < _SHOWN_TICKS:
        ticks = (*ticks, tick)
        tick = schedule.definition.timetable.after(tick)
    return ticks


def _in_words(tick: datetime, zone: ZoneInfo) -> str:
    """``Monday 2 March 2026, 07:00:00 CET``."""
    local = tick.astimezone(zone)
    return f"{local:%A} {local.day} {local:%B %Y, %H:%M:%S %Z}"


@schedule.command()
@click.argument("name")
@_on_schedules
async def run(store: ScheduleStore, output: Output, name: str) -> None:
    """Dispatch a job of schedule NAME now, whatever runs. Its next tick stays where it is."""
    await _get(store, name)
    job_id = await store.run(name, _templates())
    output.result({"schedule": name, "job_id": str(job_id)}, str(job_id))


@schedule.command()
@click.argument("name")
@_on_schedules
async def pause(store: ScheduleStore, output: Output, name: str) -> None:
    """Let schedule NAME tick no more, until it is resumed."""
    await _get(store, name)
    done = await store.pause(name)
    output.result({"schedule": name, "paused": done}, f"{name} is paused." if done else f"{name} was paused already.")


@schedule.command()
@click.argument("name")
@_on_schedules
async def resume(store: ScheduleStore, output: Output, name: str) -> None:
    """Let schedule NAME tick again, from now on: ticks of the pause are left out (see backfill)."""
    await _get(store, name)
    done = await store.resume(name)
    output.result({"schedule": name, "resumed": done}, f"{name} is resumed." if done else f"{name} was not paused.")


@schedule.command()
@click.argument("name")
@click.option("--from", "since", type=Moment(), required=True, metavar="TIME", help="The first tick.")
@click.option("--until", type=Moment(), metavar="TIME", help="The last tick. Default: now.")
@yes_option
@_on_schedules
async def backfill(
    store: ScheduleStore, output: Output, name: str, since: datetime, until: datetime | None, yes: bool
) -> int:
    """Dispatch jobs for past ticks of schedule NAME that had none, whatever runs. At most 1,000 at once.

    Times without a zone are in the schedule's. Ticks whose jobs ended over a week ago are forgotten, and count as
    without a job.
    """
    found = await _get(store, name)
    zone = ZoneInfo(found.definition.tz)
    first = _aware(since, zone)
    last = min(found.now, found.now if until is None else _aware(until, zone))
    ticks = ticks_between(found.definition.timetable, first, last, MOST_BACKFILLED + 1)
    if len(ticks) > MOST_BACKFILLED:
        raise Refused(f"there are more than {MOST_BACKFILLED:,} ticks in this time: give --until, and go on after it")
    question = f"Dispatch jobs for up to {counted(len(ticks), 'tick')} of {name}, from {first} to {last}?"
    confirm(question, yes=yes, what="this dispatches jobs of the past")
    done = await store.backfill(name, ticks, _templates())
    output.result(
        {"schedule": name, "ticks": [timestamp(each) for each in done]}, f"Dispatched {counted(len(done), 'job')}."
    )
    return 0


def _aware(moment: datetime, zone: ZoneInfo) -> datetime:
    try:
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise Refused(f"{moment.isoformat()} is no time in UTC") from None
