"""Plans: what to say to the database, apart from how it is said.

A plan is a generator. It yields statements, is sent the result of each, and returns what came of them. So the same code
runs in a transaction of outbox's own (`run`), and in one of an application (`run_in_session`): of a sync session, or of
an async one by ``AsyncConnection.run_sync``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from outbox.drivers.database.connection.errors import translate_in_session
from outbox.drivers.database.connection.raw_connection import Rows, SqlConnection
from outbox.drivers.database.dialects import Statement

P = ParamSpec("P")
T = TypeVar("T")
Plan = Generator[Statement, Rows, T]


async def run(plan: Plan[T], connection: SqlConnection) -> T:
    """Send the statements of ``plan`` over ``connection``, an ``AsyncConnection`` or one of `raw_connection`."""
    try:
        statement = next(plan)
        while True:
            statement = plan.send(await connection.exec_driver_sql(*statement))
    except StopIteration as end:
        result: T = end.value
        return result


def running(plan: Callable[P, Plan[T]], *args: P.args, **kwargs: P.kwargs) -> Callable[[SqlConnection], Awaitable[T]]:
    """Work for `Database`, which calls ``plan`` anew for each try."""
    return lambda connection: run(plan(*args, **kwargs), connection)


def run_in_session(connection: Connection, plan: Plan[T]) -> T:
    """Send the statements of ``plan`` in the transaction of an application that ``connection`` is in.

    Raises:
        OutboxError: the tables are missing, or outbox has another word for what the database refused.
        DBAPIError: what the application's own transaction suffers, such as a deadlock or a lost connection.
    """
    try:
        statement = next(plan)
        while True:
            statement = plan.send(connection.exec_driver_sql(*statement))
    except StopIteration as end:
        result: T = end.value
        return result
    except DBAPIError as error:
        translated = translate_in_session(error)
        if translated is None:
            raise
        raise translated from error
