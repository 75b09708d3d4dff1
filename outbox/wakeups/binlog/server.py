"""Checks whether a server's binary log can be read, and explains why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asyncmy.errors import MySQLError

from outbox.wakeups.base import Unavailable

_NO_PRIVILEGE = {1045, 1227, 1142}
_NO_SUCH_STATEMENT = 1064
_FACTS = """
SELECT CURRENT_USER(), VERSION(), @@global.log_bin, (
  SELECT ordinal_position FROM information_schema.columns
  WHERE table_schema = %s AND table_name = 'queue_jobs' AND column_name = 'queue'
)
"""
_COMPRESSION = "SHOW GLOBAL VARIABLES LIKE 'binlog_transaction_compression'"


@dataclass(frozen=True, slots=True)
class Server:
    """A server whose binary log can be read, and the current end of that log."""

    schema: str
    user: str
    queue_column: int
    """Index of the column `queue` in `queue_jobs`, from 0."""
    file: str = ""
    position: int = 0

    @classmethod
    async def inspect(cls, connection: Any, schema: str) -> Server:
        """
        Raises:
            Unavailable: the log cannot be read. The message says why, and which statement would change that.
            MySQLError: the server did not answer.
        """
        user, version, logs, place = await _row(connection, _FACTS, schema)
        server = cls(schema, user, int(place or 0) - 1)
        if not logs:
            raise Unavailable("the server writes no binary log: start it with --log-bin")
        if not place:
            raise Unavailable(f"there is no table queue_jobs in {schema}: run `alembic upgrade head`")
        compression = await _row(connection, _COMPRESSION)
        if compression is not None and compression[1] == "ON":
            raise Unavailable("binlog_transaction_compression is ON, and hides which tables are written to")
        status = await server._status(connection, "mariadb" in version.lower())
        return cls(schema, user, server.queue_column, *server._logged(status))

    async def _status(self, connection: Any, is_mariadb: bool) -> Any:
        try:
            if is_mariadb:
                return await _row(connection, "SHOW MASTER STATUS")
            try:
                return await _row(connection, "SHOW BINARY LOG STATUS")
            except MySQLError as error:
                if _code(error) != _NO_SUCH_STATEMENT:
                    raise
                # Before 8.2.
                return await _row(connection, "SHOW MASTER STATUS")
        except MySQLError as error:
            raise self.explained(error, "REPLICATION CLIENT") from error

    def _logged(self, status: Any) -> tuple[str, int]:
        if status is None:
            raise Unavailable("the server writes no binary log: start it with --log-bin")
        file, position, only, never = status[:4]
        if (only and self.schema not in only.split(",")) or self.schema in never.split(","):
            raise Unavailable(
                f"the server leaves {self.schema} out of its binary log: see binlog_do_db, binlog_ignore_db"
            )
        return file, int(position)

    def explained(self, error: MySQLError, privilege: str) -> Exception:
        """The exception for an error of a statement that needs ``privilege``."""
        if _code(error) not in _NO_PRIVILEGE:
            return error
        name, _, host = self.user.rpartition("@")
        return Unavailable(f"no {privilege}: GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{name}'@'{host}'")


async def _row(connection: Any, statement: str, *parameters: str) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchone()


def _code(error: MySQLError) -> Any:
    return error.args[0] if error.args else None
