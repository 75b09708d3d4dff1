"""What the errors of database servers mean, and how long to go on trying."""

from __future__ import annotations

import asyncio
import random
from enum import Enum

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from outbox import clock
from outbox.errors import BackendUnavailable, ConfigurationError, OutboxError, TablesMissing

_ATTEMPTS = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5
_LAST_TRY = 10.0
"""Seconds after the first try."""

# 1205 lock wait timeout, 1213 deadlock (of Galera also at any statement and at COMMIT, when another node's transaction
# was first), 1020 record changed since last read (MariaDB), 3101 the same as 1213 at COMMIT by group replication.
_CONTENDED = {1205, 1213, 1020, 3101}
# An error of the storage engine at COMMIT: 146 is its lock wait timeout, 149 its deadlock. MySQL says so when another
# member of the group, whose transaction was first, has undone this one.
_COMMIT_FAILED, _CONTENDED_INSIDE = 1180, ("Got error 146 ", "Got error 149 ")
# 1047 a node of Galera without a majority, 1053 shutting down, 1290 and 1836 read only, 3100 a member of group
# replication that cannot ask the others.
_OUT_OF_OFFICE = {1047, 1053, 1290, 1836, 3100}
# 1021, 1026, 1030 with its error 28, and 3 no space left, 1037 and 1041 no memory left, 1114 the table is full.
_FULL = {3, 1021, 1026, 1037, 1041, 1114}
_ENGINE_FAILED, _FULL_INSIDE = 1030, "error 28 "
# 1040, 1129, 1203, 1226 too many connections or other uses, 1152 aborted, 1158-1161 network, 1317 query interrupted,
# 1927 killed, 1969 and 3024 took longer than the server allows, 2002-2055 the client's own, 3169 session killed, 4031
# idle too long, 9001 no server behind ProxySQL.
_UNREACHABLE = (
    {1040, 1129, 1152, 1158, 1159, 1160, 1161, 1203, 1226, 1317, 1927, 1969, 3024, 3169, 4031, 9001}
    | _FULL
    | _OUT_OF_OFFICE
    | set(range(2000, 2060))
)
# 1044, 1045, 1698 access, 1046, 1049 no or an unknown database, 1142, 1143, 1227, 1370 a missing grant, 1820, 1862 the
# password has expired, 3118, 4151 the account is locked.
_MISCONFIGURED = {1044, 1045, 1046, 1049, 1142, 1143, 1227, 1370, 1698, 1820, 1862, 3118, 4151}
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
    if "disk I/O error" in message or _is_full(error):
        return Fault.UNREACHABLE
    return Fault.OTHER


def _is_full(error: BaseException) -> bool:
    """Whether the server has no room for what it is to write, which an operator may give it."""
    code, message = (code_of(error), str(error.orig)) if isinstance(error, DBAPIError) else (None, "")
    inside = code == _ENGINE_FAILED and _FULL_INSIDE in message
    return code in _FULL or inside or "database or disk is full" in message


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
        says = "has no room left" if _is_full(error) else "does not answer"
        return BackendUnavailable(f"{where} {says}: {first_line(error)}")
    if not isinstance(error, DBAPIError):
        return None
    code, message = code_of(error), str(error.orig)
    if code in _NO_SUCH_TABLE or "no such table" in message:
        return TablesMissing(f"{where} lacks a table of outbox: run `alembic upgrade head` ({first_line(error)})")
    if code in _NO_SUCH_COLUMN or "no such column" in message or "has no column" in message:
        return TablesMissing(f"{where} has tables of another version: run `alembic upgrade head` ({first_line(error)})")
    if code in _MISCONFIGURED:
        return ConfigurationError(f"{where} refuses this user or database: {first_line(error)}")
    if "readonly database" in message:
        return ConfigurationError(
            f"{where} cannot be written: this user needs write access to the file and to its directory "
            f"({first_line(error)})"
        )
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
        self._begun = clock.now()
        self._reconnected = False

    async def pause_after(self, error: BaseException) -> bool:
        """Whether to try again; if so, after having waited."""
        self._tried += 1
        fault = classify(error)
        # Each try may have waited for a lock by itself: for five seconds on SQLite, for fifty on servers.
        if fault is Fault.OTHER or self._tried >= _ATTEMPTS or clock.now() - self._begun >= _LAST_TRY:
            return False
        if fault is Fault.UNREACHABLE:
            # The pool drops every connection of a server that went away, so one more try meets a fresh one.
            again, self._reconnected = not self._reconnected, True
            return again
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._tried)
        await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - spreads load, guards nothing
        return True
