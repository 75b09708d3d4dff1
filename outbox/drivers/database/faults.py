"""What the errors of database servers mean, and how long to go on trying."""

from __future__ import annotations

import asyncio
import random
from enum import Enum

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from outbox.errors import BackendUnavailable, ConfigurationError, OutboxError, TablesMissing

_ATTEMPTS = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5

# 1205 lock wait timeout, 1213 deadlock (of Galera also at any statement and at COMMIT, when another node's transaction
# was first), 1020 record changed since last read (MariaDB), 3101 the same as 1213 at COMMIT by group replication.
_CONTENDED = {1205, 1213, 1020, 3101}
# An error of the storage engine at COMMIT: 146 is its lock wait timeout, 149 its deadlock. MySQL says so when another
# member of the group, whose transaction was first, has undone this one.
_COMMIT_FAILED, _CONTENDED_INSIDE = 1180, ("Got error 146 ", "Got error 149 ")
# 1047 a node of Galera without a majority, 1053 shutting down, 1290 and 1836 read only, 3100 a member of group
# replication that cannot ask the others.
_OUT_OF_OFFICE = {1047, 1053, 1290, 1836, 3100}
# 1040 too many connections, 1152 aborted, 1158-1161 network, 1317 query interrupted, 1927 killed, 2002-2055 the
# client's own, 3169 session killed, 4031 idle too long.
_UNREACHABLE = {1040, 1152, 1158, 1159, 1160, 1161, 1317, 1927, 3169, 4031} | _OUT_OF_OFFICE | set(range(2000, 2060))
# 1044, 1045, 1698 access, 1049 unknown database, 1142 a missing grant.
_MISCONFIGURED = {1044, 1045, 1049, 1142, 1698}
_NO_SUCH_TABLE = {1146, 1051}
_NO_SUCH_COLUMN = {1054}
_PACKET_TOO_LARGE = 1153


class Fault(Enum):
    CONTENDED = "contended"
    """The server rolled back to resolve a conflict: the same again is right."""
    UNREACHABLE = "unreachable"
    """The connection is gone, or the server refuses for now; what was asked may have been done."""
    OTHER = "other"


def classify(error: BaseException) -> Fault:
    if isinstance(error, DBAPIError):
        return _classify_driver(error)
    if isinstance(error, OSError | EOFError | PoolTimeout | asyncio.IncompleteReadError) or _came_from_driver(error):
        return Fault.UNREACHABLE
    return Fault.OTHER


def _came_from_driver(error: BaseException) -> bool:
    """A driver that meets half an answer, of a server that is killed, stumbles in ways that it has no error for."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and "asyncmy" in frame.tb_frame.f_code.co_filename


def _classify_driver(error: DBAPIError) -> Fault:
    code = code_of(error)
    if code in _CONTENDED:
        return Fault.CONTENDED
    message = str(error.orig)
    if code == _COMMIT_FAILED and any(inside in message for inside in _CONTENDED_INSIDE):
        return Fault.CONTENDED
    if isinstance(error, OperationalError) and (
        "database is locked" in message or "database table is locked" in message
    ):
        return Fault.CONTENDED
    if error.connection_invalidated or code in _UNREACHABLE or isinstance(error.orig, OSError | EOFError):
        return Fault.UNREACHABLE
    if "disk I/O error" in message:
        return Fault.UNREACHABLE
    return Fault.OTHER


def code_of(error: DBAPIError) -> int | None:
    """The server's error number, where the driver gives one."""
    return _number(error.orig)


def out_of_office(error: BaseException) -> bool:
    """Whether a driver's error says that this server does not take writes now, though it answers. After a failover
    another one does, perhaps under the same name: only a new connection finds it."""
    return _number(error) in _OUT_OF_OFFICE


def _number(error: BaseException | None) -> int | None:
    arguments = getattr(error, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def translate(error: BaseException, where: str) -> OutboxError | None:
    """The error of outbox for a driver's error, or None where there is no better word than the driver's own."""
    if classify(error) is not Fault.OTHER:
        return BackendUnavailable(f"{where} does not answer: {first_line(error)}")
    if not isinstance(error, DBAPIError):
        return None
    code, message = code_of(error), str(error.orig)
    if code in _NO_SUCH_TABLE or "no such table" in message:
        return TablesMissing(f"{where} lacks a table of outbox: run `alembic upgrade head` ({first_line(error)})")
    if code in _NO_SUCH_COLUMN or "no such column" in message or "has no column" in message:
        return TablesMissing(f"{where} has tables of another version: run `alembic upgrade head` ({first_line(error)})")
    if code in _MISCONFIGURED:
        return ConfigurationError(f"{where} refuses this user or database: {first_line(error)}")
    if "file is not a database" in message or "unable to open database file" in message:
        return ConfigurationError(f"{where} cannot be opened as an SQLite database: {first_line(error)}")
    if code == _PACKET_TOO_LARGE:
        return ConfigurationError(f"{where}: a statement is larger than the server's max_allowed_packet: raise it")
    return None


def first_line(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause).strip() or type(cause).__name__
    return text.splitlines()[0]


class Persistence:
    """Bounded retries of one piece of work: about two seconds for contention, one reconnection for a lost connection.

    Whoever must not give up, a worker's loop, catches `BackendUnavailable` and starts over at its own pace.
    """

    def __init__(self) -> None:
        self._tried = 0
        self._reconnected = False

    async def pause_after(self, error: BaseException) -> bool:
        """Whether to try again; if so, after having waited."""
        self._tried += 1
        fault = classify(error)
        if fault is Fault.OTHER or self._tried >= _ATTEMPTS:
            return False
        if fault is Fault.UNREACHABLE:
            # The pool drops every connection of a server that went away, so one more try meets a fresh one.
            again, self._reconnected = not self._reconnected, True
            return again
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._tried)
        await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - spreads load, guards nothing
        return True
