"""The rows of schedules: added, changed, removed, paused and synced with what code declares.

An application's transaction locks the slot of the name before it touches the row. So two of them that add the same
schedule wait for each other, and neither gets a deadlock.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from outbox.drivers.database import raw_columns
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.dialects import Dialect
from outbox.drivers.database.dialects.syntax import NO_MOMENT
from outbox.drivers.database.policies.schedule_tables import schedules
from outbox.drivers.database.tables import lock_slots
from outbox.drivers.schedules import Declared, StoredSchedule
from outbox.errors import InvalidOption, InvalidPayload, TablesMissing
from outbox.policies.schedule import Definition
from outbox.policies.slots import SLOTS

_log = logging.getLogger("outbox.drivers")

SEEN_EVERY, GONE_AFTER = 60.0, 180.0
"""Seconds: how often workers say that they know a declaration, and after which silence an older one may replace it."""

_TABLE = schedules.name
_MOST_FORMER = 50


def _lock_slot(dialect: Dialect, name: str) -> Plan[datetime]:
    """Wait for other transactions that change the schedule. Returns the time."""
    slot = zlib.crc32(name.encode()) % SLOTS
    # SQLite must begin to write before it reads, or what it has read may be out of date when it writes.
    statement = (
        f"SELECT {dialect.now} FROM {lock_slots.name} WHERE slot = {dialect.placeholder} FOR UPDATE"
        if dialect.for_update
        else f"UPDATE {lock_slots.name} SET slot = slot WHERE slot = {dialect.placeholder} RETURNING {dialect.now}"
    )
    rows = list((yield statement, (slot,)))
    if not rows:
        raise TablesMissing(
            f"{lock_slots.name} lacks its rows, which schedules need: call outbox.migrations.upgrade(op, version=3, "
            "from_version=2) in a revision, or run what `outbox ddl` prints"
        )
    return dialect.parse_timestamp(rows[0][0])


class _Known(NamedTuple):
    definition: str
    declaration: str | None
    former: str | None
    next_at: datetime | None
    paused: bool
    seen: float | None
    """Seconds since a worker said that it knows the declaration."""


def _read(dialect: Dialect, names: Sequence[str]) -> Plan[dict[str, _Known]]:
    rows = yield (
        f"SELECT name, definition, declaration, former, next_at, paused_at IS NOT NULL, "
        f"-({dialect.seconds_until('seen_at')}) FROM {_TABLE} WHERE name IN ({dialect.placeholders(len(names))})",
        tuple(names),
    )
    return {
        str(name): _Known(
            definition,
            declaration,
            former,
            None if next_at is None else dialect.parse_timestamp(next_at),
            bool(paused),
            None if seen is None else float(seen),
        )
        for name, definition, declaration, former, next_at, paused, seen in rows
    }


def put(dialect: Dialect, name: str, definition: Definition) -> Plan[bool]:
    """Add or change a schedule at run time; whether it is new.

    Raises:
        InvalidOption: code declares a schedule of this name.
    """
    now = yield from _lock_slot(dialect, name)
    known = (yield from _read(dialect, [name])).get(name)
    if known is not None and known.declaration is not None:
        raise InvalidOption(f"the schedule {name!r} is declared in code, by @schedule: give this one another name")
    yield from _write(dialect, name, definition, known, now, None)
    return known is None


def _write(
    dialect: Dialect, name: str, definition: Definition, known: _Known | None, now: datetime, declaration: str | None
) -> Plan[None]:
    next_at = None if known is not None and known.paused else _next_at(definition, known, now)
    former = [] if known is None else _former(known)
    if known is not None and known.declaration is not None:
        former = [*(each for each in former if each != declaration), known.declaration][-_MOST_FORMER:]
    moment = None if next_at is None else dialect.timestamp(next_at)
    values = (declaration, definition.dump(), json.dumps(former) if former else None, moment)
    p, seen = dialect.placeholder, "NULL" if declaration is None else dialect.now
    yield (
        f"INSERT INTO {_TABLE} (name, declaration, definition, former, next_at, seen_at) "
        f"VALUES ({dialect.placeholders(5)}, {seen}) {dialect.update_existing('name')} "
        f"declaration = {p}, definition = {p}, former = {p}, next_at = {p}, seen_at = {seen}",
        (name, *values, *values),
    )


def _former(known: _Known) -> list[str]:
    """The hashes of earlier declarations; none where the column holds something else."""
    found = _parsed(known.former or "[]")
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _parsed(text: object) -> object:
    try:
        return json.loads(raw_columns.text(text))
    except (ValueError, RecursionError):
        return None


def _next_at(definition: Definition, known: _Known | None, now: datetime) -> datetime | None:
    """What is the same timetable keeps a tick that is due meanwhile."""
    if known is not None and known.next_at is not None:
        before = _parsed(known.definition)
        if isinstance(before, dict) and (before.get("when"), before.get("tz")) == (definition.when, definition.tz):
            return known.next_at
    return definition.timetable.after(now)


def remove(dialect: Dialect, name: str) -> Plan[bool]:
    yield from _lock_slot(dialect, name)
    # A DELETE that finds nothing would lock the gap in which the name would be.
    if not (yield from _read(dialect, [name])):
        return False
    deleted = yield f"DELETE FROM {_TABLE} WHERE name = {dialect.placeholder}", (name,)
    return bool(deleted.rowcount)


def pause(dialect: Dialect, name: str) -> Plan[bool]:
    yield from _lock_slot(dialect, name)
    known = (yield from _read(dialect, [name])).get(name)
    if known is None or known.paused:
        return False
    yield (
        f"UPDATE {_TABLE} SET paused_at = {dialect.now}, next_at = NULL WHERE name = {dialect.placeholder}",
        (name,),
    )
    return True


def resume(dialect: Dialect, name: str) -> Plan[bool]:
    now = yield from _lock_slot(dialect, name)
    known = (yield from _read(dialect, [name])).get(name)
    if known is None or not known.paused:
        return False
    next_at = Definition.load(known.definition).timetable.after(now)
    yield (
        f"UPDATE {_TABLE} SET paused_at = NULL, next_at = {dialect.placeholder} WHERE name = {dialect.placeholder}",
        (None if next_at is None else dialect.timestamp(next_at), name),
    )
    return True


def to_sync(dialect: Dialect, declared: Sequence[Declared]) -> Plan[list[Declared]]:
    """Those of the declared schedules whose rows have to be written. Reads only."""
    known = yield from _read(dialect, [each.name for each in declared])
    return [each for each in declared if _is_to_be_written(each, known.get(each.name))]


def _is_to_be_written(declared: Declared, known: _Known | None) -> bool:
    if known is None or known.declaration is None:
        return True
    unseen = known.seen is None or known.seen > (SEEN_EVERY if known.declaration == declared.hash else GONE_AFTER)
    # Another declaration is newer if it has replaced this one before: it stays while workers know it.
    replaced = known.declaration == declared.hash or declared.hash in _former(known)
    return unseen or not replaced


def sync(dialect: Dialect, declared: Declared) -> Plan[bool]:
    """Store a declaration; False if the name belongs to a schedule that was added at run time."""
    now = yield from _lock_slot(dialect, declared.name)
    known = (yield from _read(dialect, [declared.name])).get(declared.name)
    if known is not None and known.declaration is None:
        return False
    if known is not None and known.declaration == declared.hash:
        yield f"UPDATE {_TABLE} SET seen_at = {dialect.now} WHERE name = {dialect.placeholder}", (declared.name,)
    elif _is_to_be_written(declared, known):
        yield from _write(dialect, declared.name, declared.definition, known, now, declared.hash)
    return True


def stored(dialect: Dialect, name: str | None = None) -> Plan[list[StoredSchedule]]:
    """All schedules that can be read, or the one of this name, by name.

    Raises:
        InvalidPayload: the one of this name cannot be read.
    """
    where, parameters = ("", ()) if name is None else (f"WHERE name = {dialect.placeholder}", (name,))
    rows = yield (
        f"SELECT name, definition, declaration, next_at, last_tick, paused_at, {dialect.now} FROM {_TABLE} {where} "
        "ORDER BY name",
        parameters,
    )
    found = []
    for row in rows:
        try:
            found.append(_stored(dialect, *row))
        except (InvalidPayload, InvalidOption) as error:
            if name is not None:
                advice = "remove the schedule (outbox.schedules.remove), or add it again"
                raise InvalidPayload(f"{error}; {advice}") from error
            _log.warning("the schedule %s is left out: %s", ascii(raw_columns.text(row[0])), error)
    return found


def _stored(dialect: Dialect, name: object, text: object, declaration: str | None, *moments: object) -> StoredSchedule:
    definition = Definition.load(raw_columns.text(text))
    definition.timetable  # noqa: B018 - read for its error
    next_at, last, paused, now = (None if each is None else dialect.parse_timestamp(each) for each in moments)
    return StoredSchedule(raw_columns.text(name), definition, declaration, next_at, last, paused, now or NO_MOMENT)
