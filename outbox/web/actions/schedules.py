"""Pause, resume, run and backfill schedules."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from starlette.responses import Response

from outbox.console.formatting import counted, line
from outbox.drivers.base import Driver
from outbox.drivers.schedules import ScheduleStore, Templates
from outbox.errors import InvalidOption, JobNotFound
from outbox.policies.timetable import ticks_between
from outbox.schedules import declared_schedules, schedules_of
from outbox.web.rendering import with_query
from outbox.web.view import View

FIELDS = ("connection", "name")
_MOST_BACKFILLED = 1_000


def _name(view: View) -> str:
    return view.parameters.required("name")


def _place(view: View) -> str:
    return with_query("/schedules/one", {"connection": view.connection(), "name": _name(view)})


def _store(driver: Driver) -> ScheduleStore:
    return schedules_of(driver)


def _templates(view: View) -> Templates:
    with view.readings.stores.as_client():
        return {each.name: each.template for each in declared_schedules(view.readings.stores.settings)}


async def pause(view: View) -> Response:
    name = _name(view)
    done = await view.change(view.connection(), lambda driver: _store(driver).pause(name))
    return view.done(f"{line(name)} is paused." if done else f"{line(name)} was paused already.", _place(view))


async def resume(view: View) -> Response:
    name = _name(view)
    done = await view.change(view.connection(), lambda driver: _store(driver).resume(name))
    return view.done(f"{line(name)} is resumed." if done else f"{line(name)} was not paused.", _place(view))


async def run(view: View) -> Response:
    name, templates = _name(view), _templates(view)
    job_id = await view.change(view.connection(), lambda driver: _store(driver).run(name, templates))
    if job_id is None:
        raise JobNotFound(f"there is no schedule {name!r}")
    return view.done(f"Dispatched {job_id}.", _place(view))


async def backfill(view: View) -> Response:
    name, templates = _name(view), _templates(view)
    since, until = view.parameters.required("from"), view.parameters.text("until")

    async def work(driver: Driver) -> int:
        found = await _store(driver).get(name)
        if found is None:
            raise JobNotFound(f"there is no schedule {name!r}")
        zone = ZoneInfo(found.definition.tz)
        last = min(found.now, found.now if until is None else _moment(until, zone))
        ticks = ticks_between(found.definition.timetable, _moment(since, zone), last, _MOST_BACKFILLED + 1)
        if len(ticks) > _MOST_BACKFILLED:
            raise InvalidOption(
                f"there are more than {_MOST_BACKFILLED:,} ticks in this time: say until when, and go on after it"
            )
        return len(await _store(driver).backfill(name, ticks, templates))

    done = await view.change(view.connection(), work)
    return view.done(f"Dispatched {counted(done, 'job')} of {line(name)}.", _place(view))


def _moment(text: str, zone: ZoneInfo) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidOption(f"{text[:40]!r} is no time such as 2026-03-02 or 2026-03-02T07:00") from None
