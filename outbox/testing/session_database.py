"""The parts of a driver on the connection of a test's session, so that jobs run inside the test's own transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, NestedTransaction
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from outbox.dispatch import AnySession, sync_session
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.dialects import dialect_for
from outbox.drivers.database.jobs.job_store import DatabaseJobs
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.operations.inspection import now
from outbox.drivers.database.operations.policies import DatabasePolicies
from outbox.drivers.database.operations.queues import Queues
from outbox.drivers.database.pauses.store import Pauses
from outbox.drivers.database.tables import jobs
from outbox.drivers.values import PolicyNews
from outbox.errors import ConfigurationError
from outbox.middleware.deadlines import times_in
from outbox.middleware.job_sessions import JobSessions
from outbox.settings import DATABASE
from outbox.testing.store import Store

T = TypeVar("T")


async def store_in_session(session: AnySession) -> Store:
    """
    Raises:
        ConfigurationError: the session is on no connection in a transaction.
        SessionUnusable: it is no session.
    """
    target = sync_session(session)
    connection = target.get_bind(clause=jobs)
    if not isinstance(connection, Connection) or not connection.in_transaction():
        raise ConfigurationError(
            "drain(session=…) runs jobs inside the test's own transaction: begin one on a connection, and bind the "
            'session to that connection with join_transaction_mode="create_savepoint". For jobs that were committed '
            "there is drain() without a session"
        )
    await _call(connection, target.flush)
    database = SessionDatabase(connection)
    pauses = Pauses(database, DATABASE)
    stored = DatabaseJobs(database, DATABASE, inserts_directly=False)
    return Store(
        DATABASE,
        stored,
        Queues(database, FailedJobScope(), pauses),
        DatabasePolicies(database, (pauses,)),
        SessionsInTransaction(connection),
        partial(times_in, stored.get, partial(now, database)),
    )


async def _call(connection: Connection, function: Callable[..., T], *arguments: Any) -> T:
    if connection.dialect.is_async:
        return await greenlet_spawn(function, *arguments)
    return function(*arguments)


class SessionDatabase(Database):
    """Each of its transactions is a savepoint of the connection. Nothing is tried again: a deadlock undoes all that the
    test has done."""

    def __init__(self, connection: Connection) -> None:
        # Not that of the base class: it makes engines.
        self.url = connection.engine.url
        self.dialect = dialect_for(connection.dialect)
        self.on_policy_news: Callable[[PolicyNews], None] = lambda _: None
        self._connection = connection

    async def write(self, work: Callable[[Any], Awaitable[T]], **_: Any) -> T:
        savepoint = _Savepoint(self._connection)
        await savepoint.begin()
        try:
            result = await work(savepoint)
        except BaseException:
            await savepoint.end("rollback")
            raise
        await savepoint.end("commit")
        return result

    read = inspect = write_alone = write_plain = read_plain = write


class _Savepoint:
    """The connection, as the statements of outbox expect it: asynchronous."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transaction: NestedTransaction | None = None

    async def begin(self) -> None:
        self._transaction = await _call(self._connection, self._connection.begin_nested)

    async def end(self, how: str) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None and transaction.is_active:
            await _call(self._connection, getattr(transaction, how))

    async def rollback(self) -> None:
        await self.end("rollback")
        await self.begin()

    async def exec_driver_sql(self, statement: str, parameters: Any = None) -> Any:
        return await _call(self._connection, self._connection.exec_driver_sql, statement, parameters)

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        return await _call(self._connection, self._connection.execute, statement, parameters)

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return await _call(self._connection, self._connection.scalar, statement, parameters)


class SessionsInTransaction(JobSessions):
    """The sessions of jobs whose ``handle`` takes one: on the same connection, so that each commits a savepoint."""

    def __init__(self, connection: Connection) -> None:
        super().__init__({}, 1)
        self._connection = connection

    def open(self, connection: str) -> AsyncSession:  # noqa: ARG002 - there is one
        session = AsyncSession(expire_on_commit=False, join_transaction_mode="create_savepoint")
        session.sync_session.bind = self._connection
        return session

    def open_sync(self, connection: str) -> Session:
        """
        Raises:
            ConfigurationError: the driver of the test's connection is an async one, which no thread can use.
        """
        if self._connection.dialect.is_async:
            raise ConfigurationError(
                f"a plain `def handle(self, session)` of {connection!r} cannot use the async connection of the test: "
                "drain(session=…) with a sync Session, or drain() what is committed"
            )
        return Session(self._connection, expire_on_commit=False, join_transaction_mode="create_savepoint")

    def url(self, connection: str) -> URL:  # noqa: ARG002 - there is one
        return self._connection.engine.url
