"""Bulk operations: cancel, retry, forget or move all jobs that match a filter, while workers go on.

``await bulk.start("retry", name="shop.SendReceipt", since=3_600)`` writes a row and returns. Any worker of the database
works it off, 1,000 jobs a transaction. ``connection`` names a database; left out, it is that of ``QUEUE_CONNECTION``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypedDict, Unpack
from uuid import UUID

from outbox.arguments import check_id, check_limit
from outbox.client_state import current_client, current_settings
from outbox.drivers.audit import check_by
from outbox.drivers.base import Driver
from outbox.drivers.bulk import (
    BulkFilter,
    BulkOperation,
    BulkPreview,
    BulkRequest,
    OperationStore,
    Verb,
)
from outbox.errors import ConfigurationError, InvalidOption, JobNotFound
from outbox.ids import JobId
from outbox.open_drivers import driver_here
from outbox.options import connection_or
from outbox.wakeups.announce import announce_operation

_MOST_LISTED = 1_000


class Chosen(TypedDict, total=False):
    """The jobs that are meant: those that match all that is given, or all jobs.

    ``name`` is the job's, as stored. ``key`` is the name of an ordering, concurrency or fair key, such as
    ``customer:7``. ``error`` is a part of the last error of a live job; of a failed one it is a type of exception, with
    or without its module, or a part of the message. ``since`` and ``older_than`` are seconds or a ``timedelta``: how
    long ago a live job was dispatched, or a failed one failed. ``group`` is the fingerprint of a group of failed jobs,
    as ``outbox failed --groups`` shows it. ``to`` is the queue to move jobs to.
    """

    queue: str | None
    name: str | None
    key: str | None
    error: str | None
    since: float | timedelta | None
    older_than: float | timedelta | None
    group: str | None
    to: str | None


async def preview(verb: Verb | str, *, connection: str | None = None, **chosen: Unpack[Chosen]) -> BulkPreview:
    """How many jobs ``"cancel"``, ``"retry"``, ``"forget"`` or ``"move"`` would be about, and the first five of them.

    It looks at 20,000 jobs at most: of the group or the queue, if one is named.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range.
        ConfigurationError: the connection is no database.
        RequestRefused: the database took longer than two seconds.
    """
    return await _store(connection).preview(_request(verb, chosen))


async def start(
    verb: Verb | str, *, by: str | None = None, connection: str | None = None, **chosen: Unpack[Chosen]
) -> BulkOperation:
    """Have workers do it to all jobs that match now; those that are dispatched later stay as they are.

    ``by`` says in the audit log who asked for it.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range.
        ConfigurationError: the connection is no database.
    """
    made = await _store(connection).start(_request(verb, chosen), check_by(by))
    announce_operation(current_client(), _name(connection))
    return made


async def progress(operation_id: UUID | str, *, connection: str | None = None) -> BulkOperation:
    """How far an operation is.

    Raises:
        InvalidOption: ``operation_id`` is no id.
        JobNotFound: there is no such operation: they are forgotten 90 days after their end.
        ConfigurationError: the connection is no database.
    """
    key = _id(operation_id)
    found = await _store(connection).get(key)
    if found is None:
        raise no_operation(key)
    return found


async def operations(
    *, limit: int = 50, before: UUID | str | None = None, connection: str | None = None
) -> list[BulkOperation]:
    """Up to ``limit`` operations, 1 to 1,000, the newest first; ``before`` goes on after the last id of an earlier
    call.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range.
        ConfigurationError: the connection is no database.
    """
    check_limit(limit, _MOST_LISTED)
    return await _store(connection).latest(limit, None if before is None else _id(before))


async def stop(operation_id: UUID | str, *, by: str | None = None, connection: str | None = None) -> bool:
    """End an operation after the jobs that it has done; False where it had ended already. ``by`` is for the audit log.

    Raises:
        InvalidOption: ``operation_id`` is no id.
        JobNotFound: there is no such operation.
        ConfigurationError: the connection is no database.
    """
    stopped = await _store(connection).stop(_id(operation_id), check_by(by))
    if stopped is None:
        await progress(operation_id, connection=connection)
    return stopped is not None


def operations_of(driver: Driver) -> OperationStore:
    """
    Raises:
        ConfigurationError: the connection is no database.
    """
    if driver.operations is None:
        raise ConfigurationError(
            f"bulk operations are for connections on a database, and {driver.name} is none: `outbox retry` and `outbox "
            "forget` choose its failed jobs by --queue, --name, --error and --since, and `outbox clear` empties a queue"
        )
    return driver.operations


def no_operation(operation_id: JobId) -> JobNotFound:
    return JobNotFound(f"there is no bulk operation {operation_id}: they are forgotten 90 days after their end")


def verb_of(text: Verb | str) -> Verb:
    """
    Raises:
        InvalidOption: there is no such verb.
    """
    try:
        return Verb(text)
    except ValueError:
        raise InvalidOption(f"a bulk operation is one of {', '.join(Verb)}, not {text!r}") from None


def _request(verb: Verb | str, chosen: Chosen) -> BulkRequest:
    texts = {name: _text(name, chosen.get(name)) for name in ("queue", "name", "key", "error", "group", "to")}
    matching = BulkFilter(
        queue=texts["queue"],
        name=texts["name"],
        key=texts["key"],
        error=texts["error"],
        since=_seconds("since", chosen.get("since")),
        older_than=_seconds("older_than", chosen.get("older_than")),
        group=texts["group"],
    )
    return BulkRequest(verb_of(verb), matching, texts["to"]).checked()


def _text(name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidOption(f"{name} is a text, not {value!r}")
    return value


def _seconds(name: str, duration: object) -> float | None:
    if duration is None:
        return None
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidOption(f"{name} is a number of seconds or a timedelta, not {duration!r}")
    return float(seconds)


def _id(operation_id: UUID | str) -> JobId:
    return check_id(operation_id, "the id of an operation")


def _name(connection: str | None) -> str:
    return connection_or(current_settings().connection, connection)


def _store(connection: str | None) -> OperationStore:
    return operations_of(driver_here(_name(connection)))
