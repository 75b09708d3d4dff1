"""A connection that sends a few statements again and again: the server parses each of them once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.drivers.database.connection.error_codes import NOT_PREPARED
from outbox.drivers.database.connection.errors import code_of
from outbox.drivers.database.connection.raw_connection import RawConnection

_TIMES_AS_TEXT = 10
"""Times that a connection sends a statement as text before it prepares it, which takes a round trip."""


class PreparingConnection(RawConnection):
    """A connection to MySQL or MariaDB with prepared statements, which the server keeps until the connection is closed.

    What cannot be prepared is sent as text: by an asyncmy before 0.2.13, to a proxy that refuses it, or where the
    server has as many prepared statements as it allows.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self._sent = Counter[str]()
        self._prepared: dict[str, Any] = {}
        self._may_prepare = True

    async def execute_often(self, statement: str, parameters: tuple[Any, ...]) -> None:
        """Send a statement that returns no rows. There are few of them: nothing is ever forgotten.

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
            # The server has not executed it. What it has forgotten once, it may forget again.
            self._prepare_no_more()
            await self.exec_driver_sql(statement, parameters)

    async def _prepare(self, statement: str) -> Any:
        """The prepared statement; None where it is to be sent as text."""
        if not self._may_prepare:
            return None
        self._sent[statement] += 1
        if self._sent[statement] <= _TIMES_AS_TEXT:
            return None
        if not hasattr(self._driver, "prepare"):
            self._prepare_no_more()
            return None
        try:
            prepared = self._prepared[statement] = await self._driver.prepare(statement.replace("%s", "?"))
        except Exception as error:
            translated = self._translated(error, statement)
            if not self._is_only_refused(translated):
                raise translated from error
            self._prepare_no_more()
            return None
        return prepared

    def _prepare_no_more(self) -> None:
        self._may_prepare = False
        self._prepared.clear()
