"""Which records of a table InnoDB has locks of, by the server's own account."""

from __future__ import annotations

import re
from collections import Counter

from sqlalchemy import Connection, make_url, text

from tests.servers import sql

_MYSQL = (
    "SELECT index_name, lock_mode FROM performance_schema.data_locks "
    "WHERE object_schema = :schema AND object_name = :table AND lock_type = 'RECORD' AND lock_status = 'GRANTED'"
)
_MARIADB = r"RECORD LOCKS .*? index (\w+) of table `{}`\.`{}` trx id \d+ (lock_mode \S+.*)\n((?:Record lock.*\n?)*)"
_RECORD_CONTENT = re.compile(r"^(?: \d+: .*|\s*)\n", re.MULTILINE)

ROW = "X,REC_NOT_GAP"
"""An exclusive lock of a record, and not of the gap before it, as MySQL calls it."""


def record_locks(url: str, table: str) -> Counter[tuple[str, str]]:
    """How many records are locked, by index and mode, by all transactions together."""
    with sql.connection(url) as connection:
        schema = make_url(url).database or ""
        if "MariaDB" in connection.execute(text("SELECT VERSION()")).scalar_one():
            return _of_status(connection, schema, table)
        rows = connection.execute(text(_MYSQL), {"schema": schema, "table": table})
        return Counter((index, mode) for index, mode in rows)


def _of_status(connection: Connection, schema: str, table: str) -> Counter[tuple[str, str]]:
    connection.execute(text("SET GLOBAL innodb_status_output_locks = ON"))
    status = connection.execute(text("SHOW ENGINE INNODB STATUS")).one()[2]
    connection.execute(text("SET GLOBAL innodb_status_output_locks = OFF"))
    locks: Counter[tuple[str, str]] = Counter()
    for index, mode, records in re.findall(_MARIADB.format(schema, table), _RECORD_CONTENT.sub("", status)):
        name = ROW if mode.strip() == "lock_mode X locks rec but not gap" else mode.strip()
        locks[index, name] += records.count("Record lock")
    return locks
