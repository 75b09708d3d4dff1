"""Pauses: of a connection, a queue, a job class or a key, for the whole fleet."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from outbox.client_state import current_client, current_settings
from outbox.drivers.audit import acting
from outbox.drivers.base import Driver
from outbox.drivers.pauses import Pause, PauseKind, PauseTarget, PauseTerms, check_target, check_text
from outbox.errors import InvalidOption
from outbox.events import Paused, Resumed
from outbox.job import Job
from outbox.open_drivers import driver_here
from outbox.options import connection_or
from outbox.registry import names_of
from outbox.wakeups.announce import announce

LONGEST_SECONDS = 10 * 365 * 86_400.0


async def pause(
    queue: str | None = None,
    *,
    job: str | type[Job] | None = None,
    key: str | None = None,
    connection: str | None = None,
    reason: str | None = None,
    until: datetime | None = None,
    for_: float | timedelta | None = None,
    by: str | None = None,
) -> bool:
    """Stop claims of one thing: of a ``queue``, of the class or the name of a ``job``, or of a ``key``. That is the
    value which ``concurrency_key``, ``ordering_key`` or ``fair_key`` gives, as ``outbox jobs ID`` shows it. With
    ``connection`` alone, of the whole connection. What runs goes on, and dispatching goes on.

    ``reason`` has 1 to 255 characters. The pause ends by itself at ``until``, an aware datetime, or after ``for_``
    seconds, more than 0; the store's clock decides. Without either it lasts until `resume`. ``by`` names the person who
    pauses, for those who look at the pause and for the audit log.

    Returns False when it was paused already. Then a ``reason`` or an end that is given replaces those of before.

    Raises:
        InvalidOption: an argument is of a wrong type or out of its range, ``until`` has passed, or more than one thing,
            or nothing, is named.
        ConfigurationError: a connection on Redis cannot pause a job class or a key.
    """
    driver, target = _driver(connection), target_of(queue, job, key, connection)
    terms = terms_of(reason, until, for_)
    terms = terms if by is None else terms._replace(by=by)
    with acting(by, "pause", {target.kind: target.name, "reason": reason}):
        return await pause_on(driver, target, terms)


async def resume(
    queue: str | None = None,
    *,
    job: str | type[Job] | None = None,
    key: str | None = None,
    connection: str | None = None,
    by: str | None = None,
) -> bool:
    """End a pause; False when there was none. Jobs of a class or a key join the end of their queues, in the order of
    their dispatch; of very many, the first start while this makes the others claimable.

    Raises:
        InvalidOption: an argument is of a wrong type, or more than one thing, or nothing, is named.
        ConfigurationError: a connection on Redis cannot pause a job class or a key.
    """
    target = target_of(queue, job, key, connection)
    with acting(by, "resume", {target.kind: target.name}):
        return await resume_on(_driver(connection), target)


async def pauses(*, connection: str | None = None) -> Sequence[Pause]:
    """The pauses that have not ended, by kind and name: ``kind`` (``"connection"``, ``"queue"``, ``"job"`` or
    ``"key"``), ``name``, ``reason``, ``by``, ``paused_at`` and ``until``, which is None for one that lasts until it is
    resumed."""
    return await _driver(connection).pauses.all()


async def pause_on(driver: Driver, target: PauseTarget, terms: PauseTerms) -> bool:
    """`pause`, of one store."""
    is_new = await driver.pauses.pause(target, terms)
    events = current_client().events
    if events is not None and (is_new or terms.changes):
        found = next((each for each in await driver.pauses.all() if each.target == target), None)
        until = None if found is None else found.until
        events.emit(Paused(driver.name, target.kind, target.name, terms.reason, until))
    return is_new


async def resume_on(driver: Driver, target: PauseTarget) -> bool:
    """`resume`, of one store. Idle workers are told."""
    tell = partial(announce, current_client(), connection=driver.name)
    # A class that was renamed can have been paused under an old name.
    names = names_of(target.name) if target.kind is PauseKind.JOB else (target.name,)
    ended = [await driver.pauses.resume(PauseTarget(target.kind, name), tell) for name in names]
    if not any(ended):
        return False
    if target.kind is PauseKind.QUEUE:
        tell([target.name])
    elif target.kind is PauseKind.CONNECTION:
        tell([counts.queue for counts in await driver.queues.counts() if counts.ready])
    events = current_client().events
    if events is not None:
        events.emit(Resumed(driver.name, target.kind, target.name, by_itself=False))
    return True


def _driver(connection: str | None) -> Driver:
    return driver_here(connection_or(current_settings().connection, connection))


def target_of(queue: str | None, job: str | type[Job] | None, key: str | None, connection: str | None) -> PauseTarget:
    """
    Raises:
        InvalidOption: it is not one thing.
    """
    named = [
        PauseTarget(kind, str(name) if isinstance(name, str) else _no_name(kind, name))
        for kind, name in (
            (PauseKind.QUEUE, queue),
            (PauseKind.JOB, job.name if isinstance(job, type) and issubclass(job, Job) else job),
            (PauseKind.KEY, key),
        )
        if name is not None
    ]
    if not named and connection is not None:
        named = [PauseTarget(PauseKind.CONNECTION, connection)]
    if len(named) != 1:
        raise InvalidOption("name one thing: a queue, job=, key=, or connection= alone for all of it")
    return check_target(named[0])


def _no_name(kind: PauseKind, name: object) -> str:
    raise InvalidOption(f"a {kind} to pause is named by a text, not by {name!r:.80}")


def terms_of(reason: str | None, until: datetime | None, for_: float | timedelta | None) -> PauseTerms:
    """
    Raises:
        InvalidOption: as `pause`.
    """
    return PauseTerms(check_text(reason, "a reason"), *_end(until, for_), _user())


def _end(until: datetime | None, for_: float | timedelta | None) -> tuple[datetime | None, float | None]:
    if until is not None and for_ is not None:
        raise InvalidOption("give until= or for_=, not both")
    if until is not None and (not isinstance(until, datetime) or until.tzinfo is None):
        raise InvalidOption(f"until is a datetime with a time zone, not {until!r}")
    if for_ is None:
        return _in_utc(until), None
    seconds = for_.total_seconds() if isinstance(for_, timedelta) else for_
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_SECONDS:
        raise InvalidOption(f"for_ is a number of seconds or a timedelta, more than 0, at most ten years, not {for_!r}")
    return None, float(seconds)


def _in_utc(until: datetime | None) -> datetime | None:
    try:
        return None if until is None else until.astimezone(UTC)
    except OverflowError:
        raise InvalidOption(f"until is a time that a calendar in UTC has, not {until!r}") from None


def _user() -> str | None:
    """Who runs this process."""
    try:
        return getpass.getuser()[:255]
    except (OSError, KeyError, ImportError):
        return None
