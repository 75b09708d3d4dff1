"""Rows by the hundred thousand, made by the server itself, and how many rows a server reads for what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from outbox.drivers.database import DatabaseDriver
from outbox.ids import new_token
from tests.support.every_engine import listening

MOST_READ = 25_000
"""Rows that a server may read for one page or command, by its own count."""
_DIGITS = " UNION ALL ".join(["SELECT 0 AS n", *(f"SELECT {digit}" for digit in range(1, 10))])
_DIVIDE_ROWS = (
    "UPDATE mysql.innodb_table_stats SET n_rows = n_rows DIV {0}, clustered_index_size = clustered_index_size DIV {0}, "
    "sum_of_other_index_sizes = sum_of_other_index_sizes DIV {0} WHERE database_name = DATABASE()"
)
_DIVIDE_PAGES = (
    "UPDATE mysql.innodb_index_stats SET stat_value = stat_value DIV {0} + 1 "
    "WHERE database_name = DATABASE() AND stat_name IN ('size', 'n_leaf_pages')"
)


async def fill(
    driver: DatabaseDriver, count: int, queue: str = "many", available_at: str = "NOW", table: str = "jobs"
) -> None:
    """Insert jobs, or failed jobs without a fingerprint."""
    dialect = driver.database.dialect
    now = dialect.now if available_at == "NOW" else f"'{available_at}'"
    if table == "jobs":
        columns = "id, queue, name, priority, payload, headers, attempts, available_at, created_at"
        values = f"{row_id(driver)}, '{queue}', 'tests.Job', n & 7, '{{}}', '{{}}', 0, {now}, {dialect.now}"
    else:
        columns = "id, connection, queue, name, priority, payload, headers, attempts, exception, failed_at"
        values = f"{row_id(driver)}, 'database', '{queue}', 'tests.Job', 5, '{{}}', '{{}}', 1, '{{}}', {now}"
    await insert_rows(driver, f"queue_{table} ({columns})", values, count)


async def fill_failed(driver: DatabaseDriver, count: int, groups: int, queue: str = "many") -> None:
    """Insert failed jobs of ``groups`` groups, spread over the last hours."""
    columns = "id, connection, queue, name, priority, payload, headers, attempts, exception, failed_at, fingerprint"
    sqlite = driver.database.engine.dialect.name == "sqlite"
    group = f"printf('%016x', n % {groups})" if sqlite else f"LPAD(HEX(MOD(n, {groups})), 16, '0')"
    failed_at = driver.database.dialect.now_plus("(0 - n * 1000000)")
    values = f"{row_id(driver)}, 'database', '{queue}', 'tests.Job', 5, '{{}}', '{{}}', 1, '{{}}', {failed_at}, {group}"
    await insert_rows(driver, f"queue_failed_jobs ({columns})", values, count)


async def fill_finished(driver: DatabaseDriver, count: int, queue: str = "many") -> None:
    """Insert jobs that were completed in one moment, and are kept for a day."""
    dialect = driver.database.dialect
    columns = "id, queue, name, priority, payload, headers, attempts, result, seconds, finished_at, kept_until"
    kept_until = dialect.now_plus("86400000000")
    values = f"{row_id(driver)}, '{queue}', 'tests.Job', 5, '{{}}', '{{}}', 1, 'null', 0.1, {dialect.now}, {kept_until}"
    await insert_rows(driver, f"queue_finished_jobs ({columns})", values, count)


def row_id(driver: DatabaseDriver) -> str:
    """An id for each row of one `insert_rows`, as an expression."""
    if driver.database.engine.dialect.name == "sqlite":
        return "randomblob(16)"
    return f"UNHEX(CONCAT('{new_token().hex()[:24]}', LPAD(HEX(n), 8, '0')))"


async def insert_rows(driver: DatabaseDriver, target: str, values: str, count: int) -> None:
    """Insert ``values``, in which ``n`` counts from 0, into ``target``, a table with its columns."""
    names = "abcdef"[: len(str(count - 1))]
    number = " + ".join(f"{name}.n * {10**place}" for place, name in enumerate(names))
    tables = ", ".join(f"({_DIGITS}) AS {name}" for name in names)
    source = f"(SELECT {number} AS n FROM {tables} WHERE {number} < {count}) AS numbers"
    async with driver.database.engine.begin() as connection:
        await connection.exec_driver_sql(f"INSERT INTO {target} SELECT {values} FROM {source}")


async def keep_statistics(driver: DatabaseDriver, *, divided_by: int = 1) -> None:
    """Have the server look at the tables, and plan with what it knows now, ``divided_by`` so much, until they are gone:
    as where so many times more rows have come since. Else it looks at any time, even while rows come in."""
    async with driver.database.engine.connect() as connection:
        tables = [name for (name,) in await connection.exec_driver_sql(r"SHOW TABLES LIKE 'queue\_%%'")]
        for table in tables:
            await connection.exec_driver_sql(f"ALTER TABLE {table} STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0")
        (await connection.exec_driver_sql(f"ANALYZE TABLE {', '.join(tables)}")).all()
        if divided_by > 1:
            await connection.exec_driver_sql(_DIVIDE_ROWS.format(divided_by))
            await connection.exec_driver_sql(_DIVIDE_PAGES.format(divided_by))
            await connection.commit()
            # Under another name, a table is opened with the statistics that are stored.
            for table in tables:
                await connection.exec_driver_sql(f"RENAME TABLE {table} TO {table}_")
                await connection.exec_driver_sql(f"RENAME TABLE {table}_ TO {table}")


class RowsRead:
    """The rows that servers of MySQL and MariaDB read for the statements of this process, by their own count."""

    def __init__(self) -> None:
        self.total = 0
        self._before = 0

    def before(self, connection: Any, *_: object) -> None:
        first = _rows_read(connection)
        second = _rows_read(connection)
        # Asking reads rows as well, as many each time.
        self._before = second + (second - first)

    def after(self, connection: Any, *_: object) -> None:
        self.total += _rows_read(connection) - self._before


@contextmanager
def rows_read() -> Iterator[RowsRead]:
    read = RowsRead()
    with listening(before_cursor_execute=read.before, after_cursor_execute=read.after):
        yield read


def _rows_read(connection: Any) -> int:
    cursor = connection.connection.cursor()
    cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read_%%'")
    found = sum(int(value) for _, value in cursor.fetchall())
    cursor.close()
    return found
