"""What the server itself counts: rows that a connection has read, and pages that were looked at."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver

_STATUS = (
    "SHOW SESSION STATUS WHERE Variable_name IN ('Handler_read_first', 'Handler_read_key', 'Handler_read_last', "
    "'Handler_read_next', 'Handler_read_prev', 'Handler_read_rnd', 'Innodb_buffer_pool_read_requests')"
)
_UNPURGED_MYSQL = "SELECT count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'"
_UNPURGED_MARIADB = "SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'"
_PAGES = "Innodb_buffer_pool_read_requests"


@dataclass(frozen=True, slots=True)
class Reads:
    """What was read between two looks at the counters.

    ``rows`` are those that the storage engine handed to the statements of one connection. Entries that are deleted and
    not yet removed are none of them: the engine walks over these by itself. They show in ``pages``, which are those of
    the whole server, what it does in the background included.
    """

    rows: int
    pages: int

    def __sub__(self, earlier: Reads) -> Reads:
        return Reads(self.rows - earlier.rows, self.pages - earlier.pages)


def engine_of(driver: Driver) -> AsyncEngine:
    """The engine of a driver that was opened with a pool of one, so that whoever asks here asks on the very connection
    that claims."""
    if not isinstance(driver, DatabaseDriver):
        raise TypeError(f"{type(driver).__name__} counts no reads")
    return driver._database.engine  # noqa: SLF001 - no public name leads to the connection that is counted


async def unpurged(driver: Driver) -> int:
    """How many transactions there are whose deleted entries the server has not removed yet."""
    async with engine_of(driver).connect() as connection:
        if getattr(connection.dialect, "is_mariadb", False):
            return int((await connection.execute(text(_UNPURGED_MARIADB))).one()[1])
        return int((await connection.execute(text(_UNPURGED_MYSQL))).scalar_one())


async def reads(driver: Driver) -> Reads:
    """The counters of the driver's connection, since it was opened."""
    async with engine_of(driver).connect() as connection:
        status = {row[0]: int(row[1]) for row in await connection.execute(text(_STATUS))}
    pages = status.pop(_PAGES)
    return Reads(sum(status.values()), pages)
