"""Dispatching: a job is validated, serialized, and handed to the session or to the connection's driver."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress, islice
from typing import Any, TypeVar, Unpack, get_type_hints

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from outbox import registry
from outbox.client_state import ClientState, current_client
from outbox.connections import connection_settings, is_relayed, is_relayed_to
from outbox.dispatch_middleware import prepared
from outbox.drivers.database.jobs.staging import check_database, reserve_keys, stage
from outbox.encrypted_jobs import encrypt_job
from outbox.encryption import keyring
from outbox.envelope import Envelope, serialize_many
from outbox.errors import InvalidJob, InvalidOption, SessionUnusable
from outbox.events import Event, Events, JobDispatched
from outbox.handler_parameters import takes_session
from outbox.ids import JobId, new_job_id
from outbox.ids import met as receipt_of_met
from outbox.instruments import around_dispatch
from outbox.job import Job
from outbox.job_definition import generator_method, meant_option
from outbox.open_drivers import OpenDrivers
from outbox.options import DISPATCH_OPTIONS, DispatchOptions, JobOptions
from outbox.policies.attempt_limits import check_dispatch_if
from outbox.policies.base import Policies
from outbox.relay.route import relayed_connection, to_relay_row
from outbox.relay.thread import RelayThreads
from outbox.settings import DATABASE, Settings
from outbox.wakeups.announce import announce

AnySession = AsyncSession | Session | async_scoped_session[Any] | scoped_session[Any]

Function = TypeVar("Function", bound=Callable[..., Any])

_SERIALIZED_AT_ONCE = 100


def with_options(function: Function) -> Function:
    """Name the options one by one where ``help()`` shows the signature of ``function``."""
    signature, types = inspect.signature(function), get_type_hints(DispatchOptions)
    parameters = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=types[name])
        for name in DISPATCH_OPTIONS
    ]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


@with_options
async def dispatch(job: Job, *, session: AnySession | None = None, **options: Unpack[DispatchOptions]) -> JobId:
    """Dispatch ``job`` and return its id.

    With a ``session`` the job is written by the session's own transaction when it flushes: it exists if and only if
    that transaction commits. Nothing is awaited and no connection is opened, except for a unique job: its key is taken
    now. Without one the job is stored before this returns, in a transaction of its own.

    ``created`` of the id tells whether this made a job. It is False where a unique job has met one of the same key that
    waits: the id is that one's. It is False, too, where ``dispatch_if`` has left the job out: no job has the id.

    Every option left out is the job class's. ``delay`` is seconds, a ``timedelta`` or an aware ``datetime``, at most
    ten years ahead; the first two count from the write, by the database's clock. ``priority`` is 0 (first) to 9,
    ``max_tries`` 1 or more, ``timeout`` seconds per attempt (0: no limit), ``backoff`` seconds between attempts.
    `Job` describes the others.

    Raises:
        InvalidJob: a field does not validate, or would not reach a worker as it is; the message names it. Or no worker
            can have the class of the job.
        InvalidOption: an option is of a wrong type or out of its range.
        PayloadTooLarge: the serialised job is over ``OUTBOX_PAYLOAD_LIMIT`` bytes.
        SessionUnusable: the session cannot carry a job; the message says why.
        DuplicateJob: a job of the same key waits, and ``on_conflict`` is ``"raise"``; nothing was written.
        ConfigurationError: there is no such connection, or it is not set up; or there is no key to encrypt with.
        BackendUnavailable: without a session: the store does not answer, and the job may or may not be stored.
    """
    return (await dispatch_many((job,), session=session, **options))[0]


@with_options
async def dispatch_many(
    jobs: Iterable[Job], *, session: AnySession | None = None, **options: Unpack[DispatchOptions]
) -> list[JobId]:
    """Dispatch all ``jobs``, or none if one is refused: one INSERT per 1,000. Options and errors are those of
    `dispatch`.

    Without a session, jobs of one connection are stored in one transaction, and connections one after the other: where
    one does not answer, the jobs of those before it are stored.
    """
    serialized = serialize_all(jobs, options, takes_keys=True)
    if session is None:
        await store_all(serialized)
    else:
        await stage_in(session, serialized)
    return serialized.ids


async def stage_in(session: AnySession, serialized: Serialized) -> None:
    """`stage_all`, which asks the database if a job is unique."""
    if not serialized.unique:
        stage_all(session, serialized)
        return
    if isinstance(session, async_scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        await session.run_sync(stage_all, serialized)
    else:
        stage_all(session, serialized)


@dataclass(slots=True)
class Serialized:
    """What one dispatch writes."""

    client: ClientState
    ids: list[JobId]
    by_connection: dict[str, list[Envelope]]
    unique: bool = False
    """Whether one of the jobs is unique, so that the database is asked before it is written."""
    whole: Callable[[bool], Event] | None = None
    """Makes the event of the chain or the batch that the jobs are, from whether they are in a session."""

    def meet(self, met: Mapping[JobId, JobId]) -> None:
        """Leave out jobs that have met others of their keys."""
        if met:
            self.ids = [receipt_of_met(met[job_id]) if job_id in met else job_id for job_id in self.ids]
            for name, envelopes in self.by_connection.items():
                self.by_connection[name] = [envelope for envelope in envelopes if envelope.id not in met]


def serialize_all(jobs: Iterable[Job], options: DispatchOptions, *, takes_keys: bool = False) -> Serialized:
    """Check the options and every job before anything is written. Without ``takes_keys``, unique jobs meet no others.

    Raises:
        TypeError: there is no such option.
    """
    for name in options:
        if name not in DISPATCH_OPTIONS:
            meant = meant_option(name, DISPATCH_OPTIONS)
            hint = f"did you mean {meant!r}?" if meant else f"there are: {', '.join(sorted(DISPATCH_OPTIONS))}"
            raise TypeError(f"a dispatch has no option {name!r} ({hint})")
    client = current_client()
    settings = client.settings()
    checked = JobOptions.checked(**options)
    serialized = Serialized(client, [], {})
    remaining = iter(jobs)
    kinds: set[tuple[type[Job], str]] = set()
    # In portions, so that the jobs that a generator makes need not all be kept.
    while some := list(islice(remaining, _SERIALIZED_AT_ONCE)):
        if settings.dispatch_middleware:
            some = prepared(some, settings.dispatch_middleware)
        allowed = _allowed(some, checked)
        wanted = some if allowed is None else list(compress(some, allowed))
        for job, envelope in zip(
            wanted, serialize_many(wanted, checked, payload_limit=settings.payload_limit), strict=True
        ):
            name = checked.connection or job.connection or settings.connection
            if (type(job), name) not in kinds:
                _check_runnable(type(job))
                _check_connection(type(job), settings, name)
                _check_kept(type(job), checked, settings, name)
                kinds.add((type(job), name))
            if job.encrypt if checked.encrypt is None else checked.encrypt:
                envelope = _encrypted(client, envelope, name)
            if envelope.policies is not None:
                is_relayed(settings, name)
                serialized.unique = serialized.unique or (takes_keys and bool(envelope.policies & Policies.UNIQUE))
            group = serialized.by_connection.setdefault(name, [])
            group.append(envelope)
            serialized.ids.append(envelope.id)
        if allowed is not None:
            _mark_left_out(serialized.ids, allowed)
    return serialized


def wanted_jobs(jobs: Iterable[Job], options: DispatchOptions) -> list[Job]:
    """Those of ``jobs`` whose ``dispatch_if``, or that of ``options``, does not leave them out.

    Raises:
        InvalidOption: it is not True or False.
    """
    some = list(jobs)
    allowed = _allowed(some, JobOptions.checked(dispatch_if=options.get("dispatch_if")))
    return some if allowed is None else list(compress(some, allowed))


def _allowed(jobs: Sequence[Job], options: JobOptions) -> list[bool] | None:
    """For each job whether it is to be dispatched. None if all are."""
    if options.dispatch_if is not None:
        return None if options.dispatch_if else [False] * len(jobs)
    if all(getattr(job, "dispatch_if", None) is None for job in jobs):
        return None
    return [_allows(job) for job in jobs]


def _allows(job: Any) -> bool:
    declared = getattr(type(job), "dispatch_if", None)
    return check_dispatch_if(job.dispatch_if()) if callable(declared) else declared is not False


def _mark_left_out(ids: list[JobId], allowed: Sequence[bool]) -> None:
    """Give jobs that are left out ids that say so. ``ids`` end with those of the others."""
    first = len(ids) - sum(allowed)
    for position, is_allowed in enumerate(allowed):
        if not is_allowed:
            ids.insert(first + position, receipt_of_met(new_job_id()))


def nothing_dispatched() -> Serialized:
    """Of a dispatch all of whose jobs are left out."""
    return Serialized(current_client(), [receipt_of_met(new_job_id())], {})


def _encrypted(client: ClientState, envelope: Envelope, connection: str) -> Envelope:
    if client.recorder is not None:
        # A fake stores nothing, and a test needs no key for it.
        return envelope
    return encrypt_job(envelope, keyring(client.settings().encryption_keys), connection)


def _check_runnable(kind: type[Job]) -> None:
    reason = registry.unreachable(kind)
    if reason is not None:
        raise InvalidJob(f"{kind.name} cannot be run by a worker: {reason}")
    generator = generator_method(kind)
    if generator is not None:
        raise InvalidJob(f"{kind.name}: `{generator}` is a generator, and nothing in it would run: remove its `yield`")


def _check_connection(kind: type[Job], settings: Settings, name: str) -> None:
    if connection_settings(settings, name).driver != DATABASE and takes_session(kind):
        raise InvalidJob(
            f"{kind.name}: `handle` takes a session, and the connection {name!r} is not a database: dispatch it to a "
            "connection on a database, or let `handle` open a session itself"
        )


def _check_kept(kind: type[Job], options: JobOptions, settings: Settings, name: str) -> None:
    keep_for = kind.keep_for if options.keep_for is None else options.keep_for
    if keep_for and connection_settings(settings, name).driver != DATABASE:
        raise InvalidOption(
            f"{kind.name}: keep_for keeps a job in the database that has it, and the connection {name!r} is none: "
            "dispatch it to a connection on a database, or with keep_for=0"
        )


def stage_all(session: AnySession, serialized: Serialized) -> None:
    """Hand the jobs to the session, which writes them when it flushes."""
    if serialized.client.instruments:
        with around_dispatch(serialized.client.instruments, serialized.by_connection, in_session=True):
            _stage_all(session, serialized)
    else:
        _stage_all(session, serialized)


def _stage_all(session: AnySession, serialized: Serialized) -> None:
    """Hand the jobs to the session. Whatever their connection, the session's database is where they belong: those for
    Redis are relayed to it from there."""
    client = serialized.client
    target, settings = sync_session(session), client.settings()
    rows: list[Envelope] = []
    for name, envelopes in serialized.by_connection.items():
        if is_relayed(settings, name):
            # Workers look for them nowhere else, so that in another database they would wait for ever.
            check_database(target, connection_settings(settings, DATABASE).url)
            rows += [to_relay_row(envelope, name) for envelope in envelopes]
        else:
            rows += envelopes
    if client.recorder is not None:
        client.recorder.record(serialized.by_connection, target)
        rows = []
    elif serialized.unique:
        met = reserve_keys(target, rows)
        serialized.meet(met)
        rows = [row for row in rows if row.id not in met]
    if rows:
        stage(target, rows, partial(_committed, client))
    if client.events is not None:
        _emit(client.events, serialized, in_session=True)


async def store_all(serialized: Serialized) -> None:
    """Store the jobs in transactions of their own, one for each connection."""
    if serialized.client.instruments:
        with around_dispatch(serialized.client.instruments, serialized.by_connection, in_session=False):
            await _store_all(serialized)
    else:
        await _store_all(serialized)


async def _store_all(serialized: Serialized) -> None:
    client = serialized.client
    if client.recorder is not None:
        client.recorder.record(serialized.by_connection, None)
    else:
        await _store_each(serialized)
    if client.events is not None:
        _emit(client.events, serialized, in_session=False)


async def _store_each(serialized: Serialized) -> None:
    client = serialized.client
    for name, envelopes in list(serialized.by_connection.items()):
        gated = [envelope for envelope in envelopes if envelope.policies is not None]
        if gated and is_relayed(client.settings(), name):
            await _store(serialized, DATABASE, [to_relay_row(envelope, name) for envelope in gated])
            client.part(RelayThreads).wake(name)
            await _store(serialized, name, [envelope for envelope in envelopes if envelope.policies is None])
        else:
            await _store(serialized, name, envelopes)
        if left := {envelope.queue for envelope in serialized.by_connection[name]}:
            announce(client, left, name)


async def store_together(serialized: Serialized) -> None:
    """Store jobs that one database keeps, all or none. Those for Redis are relayed from there."""
    if serialized.client.instruments:
        with around_dispatch(serialized.client.instruments, serialized.by_connection, in_session=False):
            await _store_together(serialized)
    else:
        await _store_together(serialized)


async def _store_together(serialized: Serialized) -> None:
    client = serialized.client
    if client.recorder is not None:
        client.recorder.record(serialized.by_connection, None)
    else:
        await _store_rows(client, serialized.by_connection)
    if client.events is not None:
        _emit(client.events, serialized, in_session=False)


async def _store_rows(client: ClientState, by_connection: Mapping[str, Sequence[Envelope]]) -> None:
    settings = client.settings()
    rows: list[Envelope] = []
    database = DATABASE
    for name, envelopes in by_connection.items():
        if is_relayed_to(settings, name):
            rows += [to_relay_row(envelope, name) for envelope in envelopes]
        else:
            database = name
            rows += envelopes
    if rows:
        await client.part(OpenDrivers).get(database).jobs.insert(rows)
    for name, envelopes in by_connection.items():
        if is_relayed_to(settings, name):
            client.part(RelayThreads).wake(name)
        else:
            announce(client, {envelope.queue for envelope in envelopes}, name)


async def _store(serialized: Serialized, name: str, envelopes: Sequence[Envelope]) -> None:
    if not envelopes:
        return
    driver = serialized.client.part(OpenDrivers).get(name)
    if serialized.unique and driver.policies is not None:
        serialized.meet(await driver.policies.insert_unique(envelopes))
    else:
        await driver.jobs.insert(envelopes)


def _emit(events: Events, serialized: Serialized, *, in_session: bool) -> None:
    events.emit_all(
        [
            JobDispatched(envelope.id, envelope.name, envelope.queue, connection, in_session)
            for connection, envelopes in serialized.by_connection.items()
            for envelope in envelopes
        ]
    )
    if serialized.whole is not None:
        events.emit(serialized.whole(in_session))


def _committed(client: ClientState, queues: Collection[str]) -> None:
    """Jobs of these queues were committed by a session."""
    names = {queue: relayed_connection(queue) for queue in queues}
    for name in names.values():
        if name is not None:
            client.part(RelayThreads).wake(name)
    ordinary = [queue for queue, name in names.items() if name is None]
    if ordinary:
        announce(client, ordinary)


def sync_session(session: object) -> Session:
    """The ``Session`` behind any kind of session.

    Raises:
        SessionUnusable: it is none.
    """
    if isinstance(session, async_scoped_session | scoped_session):
        session = session()
    if isinstance(session, AsyncSession):
        session = session.sync_session
    if not isinstance(session, Session):
        raise SessionUnusable(
            f"session= takes a Session or an AsyncSession of SQLAlchemy, not a {type(session).__name__}"
        )
    return session
