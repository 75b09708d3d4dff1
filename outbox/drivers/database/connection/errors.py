"""Errors of database servers: their meaning, and how often to retry."""

from __future__ import annotations

import asyncio
import random
import ssl
import traceback
from enum import Enum

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from outbox import clock
from outbox.drivers.database.connection import error_codes
from outbox.errors import (
    BackendUnavailable,
    ConfigurationError,
    InvalidOption,
    OutboxError,
    RequestRefused,
    TablesMissing,
)

_ATTEMPTS = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5
_LAST_TRY = 10.0
"""Seconds after the first try."""

_DRIVERS = ("asyncmy", "aiosqlite")


class Fault(Enum):
    CONTENDED = "contended"
    """The server rolled back to resolve a conflict: the same again is right."""
    UNREACHABLE = "unreachable"
    """The connection is gone, or the server refuses for now; what was asked may have been done."""
    MISCONFIGURED = "misconfigured"
    """This user, this database or these tables are not what outbox needs. When they were once, they may be again."""
    REFUSED = "refused"
    """The server answers with an error that says nothing final. An error that no list knows is one of these."""
    FINAL = "final"
    """It is about the statement or its values: trying again cannot help."""


def classify(error: BaseException) -> Fault:
    """What an error of SQLAlchemy, of a driver or of the operating system means."""
    if isinstance(error, DBAPIError):
        return _classify_driver(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Fault.MISCONFIGURED
    lost = OSError | EOFError | PoolTimeout | asyncio.IncompleteReadError
    if isinstance(error, lost) or _came_from_driver(error):
        return Fault.UNREACHABLE
    return Fault.FINAL


def _came_from_driver(error: BaseException) -> bool:
    """A driver that meets half an answer, of a server that is killed, stumbles in ways that it has no error for."""
    # What cannot be sent at all is no matter of the connection.
    if isinstance(error, UnicodeEncodeError):
        return False
    return any(
        package in frame.f_code.co_filename
        for frame, _ in traceback.walk_tb(error.__traceback__)
        for package in _DRIVERS
    )


def _classify_driver(error: DBAPIError) -> Fault:
    code = code_of(error)
    message = str(error.orig)
    if code in error_codes.CONTENDED or _is_contended_at_commit(code, message) or _is_locked(error, message):
        return Fault.CONTENDED
    if code in error_codes.MISCONFIGURED:
        return Fault.MISCONFIGURED
    if any(words in message for words in (*error_codes.BAD_CERTIFICATE, error_codes.READ_ONLY_ON_SQLITE)):
        return Fault.MISCONFIGURED
    if error.connection_invalidated or code in error_codes.UNREACHABLE or isinstance(error.orig, OSError | EOFError):
        return Fault.UNREACHABLE
    if code is None:
        return _classify_sqlite(error, message)
    return Fault.FINAL if code in error_codes.FINAL or _is_about_values(error) else Fault.REFUSED


def _is_contended_at_commit(code: int | None, message: str) -> bool:
    return code == error_codes.COMMIT_FAILED and any(inside in message for inside in error_codes.CONTENDED_INSIDE)


def _is_locked(error: DBAPIError, message: str) -> bool:
    locked = "database is locked" in message or "database table is locked" in message
    return locked and isinstance(error, OperationalError)


def _is_about_values(error: DBAPIError) -> bool:
    return isinstance(error, DataError | IntegrityError | NotSupportedError)


def _classify_sqlite(error: DBAPIError, message: str) -> Fault:
    """SQLite has words, not numbers."""
    if error_codes.FAILED_ON_SQLITE in message or _is_full(error):
        return Fault.UNREACHABLE
    if any(words in message for words in error_codes.MISCONFIGURED_ON_SQLITE):
        return Fault.MISCONFIGURED
    wrong = _is_about_values(error) or isinstance(error, ProgrammingError)
    return Fault.FINAL if wrong or any(words in message for words in error_codes.FINAL_ON_SQLITE) else Fault.REFUSED


def _is_full(error: BaseException) -> bool:
    """Whether the server has no room for what it is to write, which an operator may give it."""
    code, message = (code_of(error), str(error.orig)) if isinstance(error, DBAPIError) else (None, "")
    inside = code == error_codes.ENGINE_FAILED and error_codes.FULL_INSIDE in message
    return code in error_codes.FULL or inside or "database or disk is full" in message


def code_of(error: DBAPIError) -> int | None:
    """The server's error number, where the driver gives one."""
    return _number(error.orig)


def needs_new_connection(error: BaseException) -> bool:
    """Whether a driver's error says that this connection will not be of use again, though the server answers."""
    number = _number(error)
    if number is None:
        return any(words in str(error) for words in error_codes.NEEDS_NEW_CONNECTION_ON_SQLITE)
    return number in error_codes.NEEDS_NEW_CONNECTION


def _number(error: BaseException | None) -> int | None:
    arguments = getattr(error, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def translate(error: BaseException, where: str) -> OutboxError | None:
    """The error of outbox for a driver's error, or None where there is no better word than the driver's own."""
    fault = classify(error)
    if fault is Fault.MISCONFIGURED:
        return _misconfigured(error, where)
    if fault is Fault.REFUSED:
        return RequestRefused(f"{where} refuses a request: {first_line(error)}")
    if fault is not Fault.FINAL:
        says = "has no room left" if _is_full(error) else "does not answer"
        answered = isinstance(error, DBAPIError) and code_of(error) in error_codes.OUT_OF_OFFICE
        kind = RequestRefused if answered or _is_full(error) else BackendUnavailable
        return kind(f"{where} {says}: {first_line(error)}")
    if isinstance(error, InvalidRequestError) and "MariaDB" in str(error):
        return ConfigurationError(f"{where} is MySQL: write mysql+asyncmy://… ({first_line(error)})")
    if isinstance(error, UnicodeEncodeError):
        # Such as an argument of a command in another encoding. What jobs hold is checked before.
        return InvalidOption("a text holds characters that are no UTF-8, which no column keeps")
    if not isinstance(error, DBAPIError):
        return None
    if error.statement is None and code_of(error) in error_codes.FINAL:
        # Said to what the URL asks for when it connects, such as an init_command.
        return ConfigurationError(f"{where}: an option of the URL is refused: {first_line(error)}")
    if code_of(error) in error_codes.NO_ASCII and "ascii" in str(error.orig):
        return InvalidOption(f"names of jobs and schedules are ASCII: {first_line(error)}")
    if code_of(error) == error_codes.PACKET_TOO_LARGE:
        return ConfigurationError(f"{where}: a statement is larger than the server's max_allowed_packet: raise it")
    return None


def translate_in_session(error: DBAPIError) -> OutboxError | None:
    """The error of outbox for a driver's error in a transaction of the application. None for what that transaction
    suffers, such as a deadlock or a lost connection: it stays SQLAlchemy's error."""
    ours = classify(error) in {Fault.MISCONFIGURED, Fault.FINAL}
    return translate(error, "the session's database") if ours else None


def _misconfigured(error: BaseException, where: str) -> ConfigurationError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    code, message, said = _number(cause), str(cause), first_line(error)
    if code in error_codes.NO_SUCH_TABLE or any(words in message for words in error_codes.NO_TABLE_ON_SQLITE):
        return TablesMissing(f"{where} lacks a table of outbox: run `alembic upgrade head` ({said})")
    if code in error_codes.OTHER_VERSION or any(words in message for words in error_codes.NO_COLUMN_ON_SQLITE):
        return TablesMissing(f"{where} has tables of another version: run `alembic upgrade head` ({said})")
    if code == error_codes.STATEMENTS_LOGGED:
        return ConfigurationError(
            f"{where} has binlog_format=STATEMENT, under which InnoDB refuses every write at READ COMMITTED: "
            f"set binlog_format to ROW ({said})"
        )
    if error_codes.READ_ONLY_ON_SQLITE in message:
        return ConfigurationError(
            f"{where} cannot be written: this user needs write access to the file and to its directory ({said})"
        )
    if any(words in message for words in error_codes.NO_FILE_ON_SQLITE):
        return ConfigurationError(f"{where} cannot be opened as an SQLite database: {said}")
    if any(words in message for words in error_codes.BAD_CERTIFICATE):
        return ConfigurationError(f"{where} has a certificate that is not accepted: {said}")
    return ConfigurationError(f"{where} refuses this user or database: {said}")


def first_line(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause).strip() or type(cause).__name__
    return text.splitlines()[0]


class RetryBudget:
    """Bounded retries of one piece of work: about two seconds for contention, one reconnection for a lost connection.

    A worker's loop, which must not give up, catches `BackendUnavailable` and retries at its own pace.
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
        passes = fault in {Fault.CONTENDED, Fault.UNREACHABLE}
        if not passes or self._tried >= _ATTEMPTS or clock.now() - self._begun >= _LAST_TRY:
            return False
        if fault is Fault.UNREACHABLE:
            # The pool drops every connection of a server that went away, so one more try meets a fresh one.
            again, self._reconnected = not self._reconnected, True
            return again
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._tried)
        await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - spreads load, guards nothing
        return True
