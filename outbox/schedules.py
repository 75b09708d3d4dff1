"""Schedules at run time: added, removed, paused and resumed, in an application's own transaction where it has one.

``outbox.schedule`` declares schedules in code. `outbox.sync.schedules` has the same functions for code that is not
async. Every function takes ``connection``, the name of a connection of the settings, default that of
``QUEUE_CONNECTION``. Schedules of jobs for Redis are in the database of ``DATABASE_URL``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, Unpack

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session

from outbox.client_state import current_client, current_settings
from outbox.connections import connection_settings, is_relayed
from outbox.dispatch import AnySession, serialize_all, sync_session
from outbox.drivers.base import Driver
from outbox.drivers.database.jobs.staging import check_database
from outbox.drivers.database.schedules import in_session
from outbox.drivers.schedules import Declared, ScheduleStore
from outbox.encrypted_jobs import SCHEDULED
from outbox.envelope import Envelope
from outbox.errors import ConfigurationError, InvalidOption
from outbox.events import ScheduleChanged
from outbox.job import Job
from outbox.open_drivers import driver_here
from outbox.options import DispatchOptions, connection_or
from outbox.policies.base import Policies
from outbox.policies.schedule import Definition, JobTemplate, Overlap, check_definition, check_name
from outbox.relay.route import to_relay_row
from outbox.schedule_declarations import Declaration, declarations
from outbox.settings import DATABASE, Settings

__all__ = ["add", "pause", "remove", "resume"]

T = TypeVar("T")


async def add(
    name: str,
    when: str | None,
    job: Job,
    *,
    session: AnySession | None = None,
    every: str | timedelta | None = None,
    tz: str = "UTC",
    misfire: str = "once",
    grace: float | timedelta = 3600,
    overlap: str = "allow",
    jitter: float | timedelta = 0,
    **options: Unpack[DispatchOptions],
) -> bool:
    """Dispatch a copy of ``job`` at every tick, or change what the schedule ``name`` does; whether it is new.

    With a ``session`` the schedule is part of its transaction. ``when``, or ``every``, and the rest are those of
    `outbox.schedule`; ``when`` takes ``"90s"`` as well. ``options`` are those of a dispatch, without ``delay``. Workers
    notice a new schedule within about 20 seconds.

    Raises:
        InvalidOption: a value is of a wrong type or out of its range, or code declares a schedule of this name.
        InvalidJob, PayloadTooLarge, SessionUnusable, ConfigurationError, BackendUnavailable: as `outbox.dispatch`.
    """
    definition = definition_of_job(job, check_definition(when, every, tz, misfire, grace, overlap, jitter), options)
    named = check_name(name)
    if session is not None:
        new = await _in(session, definition.connection, lambda each: in_session.put(each, named, definition))
    else:
        new = await schedule_store(definition.connection).put(named, definition)
    return _tell(named, "added", session, new=new)


async def remove(name: str, *, session: AnySession | None = None, connection: str | None = None) -> bool:
    """Remove a schedule; False where there is none. Jobs that it has dispatched stay. One that code declares returns
    with the next start of a worker.

    Raises:
        InvalidOption: it is no name of a schedule.
    """
    named = check_name(name)
    if session is not None:
        removed = await _in(session, connection, lambda each: in_session.remove(each, named))
    else:
        removed = await schedule_store(connection).remove(named)
    return _tell(named, "removed", session, new=removed)


async def pause(name: str, *, session: AnySession | None = None, connection: str | None = None) -> bool:
    """Let a schedule tick no more; False where there is none, or it is paused already.

    Raises:
        InvalidOption: it is no name of a schedule.
    """
    named = check_name(name)
    if session is not None:
        paused = await _in(session, connection, lambda each: in_session.pause(each, named))
    else:
        paused = await schedule_store(connection).pause(named)
    return _tell(named, "paused", session, new=paused)


async def resume(name: str, *, session: AnySession | None = None, connection: str | None = None) -> bool:
    """Let a schedule tick again, from now on: ticks of the pause are left out. False where it is not paused.

    Raises:
        InvalidOption: it is no name of a schedule.
    """
    named = check_name(name)
    if session is not None:
        resumed = await _in(session, connection, lambda each: in_session.resume(each, named))
    else:
        resumed = await schedule_store(connection).resume(named)
    return _tell(named, "resumed", session, new=resumed)


def _tell(name: str, change: str, session: AnySession | None, *, new: bool) -> bool:
    """Listeners, of a change; returns ``new``."""
    events = current_client().events
    if events is not None and (new or change == "added"):
        events.emit(ScheduleChanged(name, change if new else "changed", session is not None))
    return new


async def _in(session: AnySession, connection: str | None, work: Callable[[Session], T]) -> T:
    if isinstance(session, async_scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        return await session.run_sync(lambda each: _in_sync(each, connection, work))
    return _in_sync(sync_session(session), connection, work)


def _in_sync(session: Session, connection: str | None, work: Callable[[Session], T]) -> T:
    settings = current_settings()
    name = connection_or(settings.connection, connection)
    if is_relayed(settings, name):
        check_database(session, connection_settings(settings, DATABASE).url)
    return work(session)


def schedule_store(connection: str | None) -> ScheduleStore:
    """Where the schedules of jobs for a connection are kept.

    Raises:
        ConfigurationError: there is no such connection, or no database for it.
    """
    settings = current_settings()
    return schedules_of(driver_here(stored_in(settings, connection_or(settings.connection, connection))))


def schedules_of(driver: Driver) -> ScheduleStore:
    """
    Raises:
        ConfigurationError: the store of the driver keeps none.
    """
    if driver.schedules is None:
        raise ConfigurationError(f"the connection {driver.name} keeps no schedules: name one to a database")
    return driver.schedules


def stored_in(settings: Settings, connection: str) -> str:
    """The connection to the database that keeps the schedules of jobs for ``connection``.

    Raises:
        ConfigurationError: there is no such connection, or no database for it.
    """
    return DATABASE if is_relayed(settings, connection) else connection


def definition_of_job(job: Job, definition: Definition, options: DispatchOptions) -> Definition:
    """``definition`` with its job, as a dispatch would store it.

    Raises:
        OutboxError: as `outbox.dispatch`.
    """
    if options.get("delay") is not None:
        raise InvalidOption("a schedule says when its jobs may run: leave out `delay`, or use `jitter`")
    if getattr(job, "dispatch_if", None) is not None or options.get("dispatch_if") is not None:
        raise InvalidOption(f"{job.name}: a schedule asks no dispatch_if at its ticks: let `handle` decide")
    serialized = serialize_all([job], options)
    [(connection, [envelope])] = serialized.by_connection.items()
    settings = serialized.settings
    relayed = is_relayed(settings, connection)
    if relayed and definition.overlap is Overlap.CANCEL:
        raise InvalidOption(
            f"overlap='cancel' cannot stop a job that runs on the connection {connection}: use 'skip' or 'queue_one'"
        )
    return definition.model_copy(update={"connection": connection, "job": _template(envelope, connection, relayed)})


def _template(envelope: Envelope, connection: str, relayed: bool) -> JobTemplate:
    policies = (envelope.policies or 0) | Policies.SCHEDULE
    row = envelope._replace(policies=policies)
    if row.encrypted_for is not None:
        row = row._replace(payload=row.encrypted_for(SCHEDULED))
    if relayed:
        row = to_relay_row(row, connection)
    return JobTemplate(
        name=row.name,
        queue=row.queue,
        priority=row.priority,
        payload=row.payload,
        headers=row.headers,
        policies=policies,
    )


def declared_schedules(settings: Settings, connection: str | None = None) -> list[Declared]:
    """What this process declares; of it only what is stored in the database of ``connection``, if one is given.

    Raises:
        OutboxError: the job of a schedule cannot be dispatched.
    """
    url = None if connection is None else connection_settings(settings, connection).url
    found = [_declared(declaration) for declaration in declarations()]
    return [
        each
        for each in found
        if url is None or connection_settings(settings, stored_in(settings, each.definition.connection)).url == url
    ]


def _declared(declaration: Declaration) -> Declared:
    def definition() -> Definition:
        return definition_of_job(declaration.kind(), declaration.definition, {})

    def template() -> JobTemplate:
        made: Any = definition().job
        return made  # type: ignore[no-any-return]

    return Declared(declaration.name, definition(), template)
