"""What a database says of its size, and of transactions that are open: from its own catalogues, without counting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.errors import code_of
from outbox.drivers.values import StoreFacts, TableSize

_REFUSED = {
    1142,  # the command is denied to the user
    1193,  # a variable that only some servers know
    1227,  # the user needs the privilege PROCESS
    1305,  # a function that only some servers know
    3854,  # MySQL lists no transaction while a statement of one holds bytes that are no text, such as ids
}


async def facts(database: Database) -> StoreFacts:
    dialect = database.dialect

    async def read(connection: AsyncConnection) -> StoreFacts:
        await _tried(connection, dialect.fresh_sizes)
        rows = (await connection.exec_driver_sql(dialect.table_sizes)).all()
        seconds = await _first_number(connection, dialect.oldest_transaction)
        return StoreFacts(tuple(map(_size, rows)), None if seconds is None else max(0.0, seconds))

    return await database.inspect(read)


async def _first_number(connection: AsyncConnection, statements: Sequence[str]) -> float | None:
    """What the first of them says that the server carries out."""
    for statement in statements:
        answer = await _tried(connection, statement)
        if answer is not None:
            number = answer.scalar()
            return None if number is None else float(number)
    return None


async def _tried(connection: AsyncConnection, statement: str) -> CursorResult[Any] | None:
    """None where there is no such statement, or the server does not carry it out for this user."""
    try:
        return await connection.exec_driver_sql(statement) if statement else None
    except DBAPIError as error:
        if code_of(error) in _REFUSED:
            return None
        raise


def _size(row: Any) -> TableSize:
    name, rows, data, indexes = row
    return TableSize(str(name), None if rows is None else int(rows), int(data or 0), int(indexes or 0))
