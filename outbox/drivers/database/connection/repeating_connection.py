"""A connection over which a few statements are sent again and again: a server parses each of them once."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.drivers.database.connection.error_codes import NOT_PREPARED
from outbox.drivers.database.connection.errors import code_of
from outbox.drivers.database.connection.raw_connection import RawConnection

_PREPARED_AFTER = 10
"""Times that a connection has sent a statement before it is prepared, which takes a round trip."""


class RepeatingConnection(RawConnection):
    """A connection to MySQL or MariaDB that prepares what it sends often.

    What cannot be prepared is sent as text: by a driver that is too old for it, to a proxy that does not take it, or
    where the server has as many prepared statements as it allows.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self._sent: dict[str, int] = {}
        self._prepared: dict[str, Any] = {}
        self._may_prepare = True

    async def repeat(self, statement: str, parameters: tuple[Any, ...]) -> None:
        """Send one of few statements, whose rows nobody reads.

        Raises:
            DBAPIError: the server refuses it, or the connection is lost.
        """
        prepared = self._prepared.get(statement) or await self._prepare(statement)
        if prepared is None:
            await self.exec_driver_sql(statement, parameters)
            return
        try:
            await prepared.execute(parameters)
        except Exception as error:
            translated = self._translated(error, statement)
            if not isinstance(translated, DBAPIError) or code_of(translated) not in NOT_PREPARED:
                raise translated from error
            # It was not carried out: a proxy has changed servers, or the table has changed under it.
            self._may_prepare = False
            self._prepared.clear()
            await self.exec_driver_sql(statement, parameters)

    async def _prepare(self, statement: str) -> Any:
        """The prepared statement; None where it is better sent as text."""
        if not self._may_prepare:
            return None
        sent = self._sent[statement] = self._sent.get(statement, 0) + 1
        if sent <= _PREPARED_AFTER:
            return None
        prepare = getattr(self._driver, "prepare", None)
        try:
            prepared = None if prepare is None else await prepare(statement.replace("%s", "?"))
        except Exception as error:
            translated = self._translated(error, statement)
            if not self._is_only_refused(translated):
                raise translated from error
            prepared = None
        if prepared is None:
            self._may_prepare = False
        else:
            self._prepared[statement] = prepared
        return prepared
