"""Jobs by the million: rows that the server makes itself, as ``dispatch`` would have made them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text

from benchmarks.jobs import NoOp
from benchmarks.stores import Store
from outbox.envelope import Envelope
from outbox.ids import new_job_id

_ROWS_PER_INSERT = 100_000
_JOBS_PER_COMMAND = 10_000
_DIGITS = "SELECT 0 AS n UNION ALL " + " UNION ALL ".join(f"SELECT {digit}" for digit in range(1, 10))

_COLUMNS = "id, queue, name, priority, payload, headers, attempts, available_at, created_at"
_FAILED_COLUMNS = "id, connection, queue, name, priority, payload, headers, attempts, exception, failed_at, fingerprint"


@dataclass(frozen=True, slots=True)
class Fill:
    """So many jobs for `benchmarks.jobs.NoOp`, spread evenly over ``queues`` queues and ``priorities`` priorities.

    Queues are called q0, q1, …, unless there is only one: that one is ``default``. A single priority is ``priority``.
    Jobs became available one after the other, a microsecond apart, and the last of them ``delay`` seconds from now
    (ten minutes ago by default).
    """

    count: int
    queues: int = 1
    priorities: int = 1
    priority: int = 5
    delay: float = -600.0
    first: int = 0
    """The number of the first, which keeps the ids of several fills apart."""


async def fill(store: Store, what: Fill) -> None:
    """Insert the jobs in transactions of up to 100,000 rows. The binary log of a server of this run does not hear of
    them, and nobody analyzes the table: a claim has to be right about it anyway."""
    if store.is_redis:
        await _fill_redis(store, what)
        return
    with store.sql() as connection:
        for start, end in _portions(connection, store, what.count):
            connection.execute(text(_insert_jobs(store, what, start, end)))


def fill_failed(store: Store, count: int, first: int = 0, groups: int = 1) -> None:
    """Failed jobs, as they are after their last attempt, of so many groups."""
    with store.sql() as connection:
        for start, end in _portions(connection, store, count):
            number = f"(numbers.n + {first})"
            values = (
                f"{_job_id(store, number)}, 'database', 'default', '{NoOp.name}', 5, "
                f"{_payload(store, number)}, '{{}}', "
                f'3, \'{{"type": "ValueError", "message": "no", "traceback": ""}}\', {_moment(store, "0")}, '
                f"{_fingerprint(store, number, groups)}"
            )
            statement = f"INSERT INTO queue_failed_jobs ({_FAILED_COLUMNS}) SELECT {values} FROM {_numbers(start, end)}"
            connection.execute(text(statement.replace(":", "\\:")))


async def _fill_redis(store: Store, what: Fill) -> None:
    available = datetime.now(UTC) + timedelta(seconds=what.delay)
    driver = store.driver()
    for start in range(0, what.count, _JOBS_PER_COMMAND):
        await driver.jobs.insert(
            [
                Envelope(
                    new_job_id(),
                    "default" if what.queues == 1 else f"q{number % what.queues}",
                    NoOp.name,
                    what.priority if what.priorities == 1 else number // what.queues % what.priorities,
                    f'{{"number": {number + what.first}}}',
                    available_at=available + timedelta(microseconds=number - what.count),
                )
                for number in range(start, min(start + _JOBS_PER_COMMAND, what.count))
            ]
        )
    await driver.close()


def _portions(connection: Connection, store: Store, count: int) -> Iterator[tuple[int, int]]:
    if store.is_sql_server and store.owned:
        connection.execute(text("SET SESSION sql_log_bin = 0"))
    for start in range(0, count, _ROWS_PER_INSERT):
        yield start, min(start + _ROWS_PER_INSERT, count)


def _insert_jobs(store: Store, what: Fill, start: int, end: int) -> str:
    number = f"(numbers.n + {what.first})"
    queue = "'default'" if what.queues == 1 else _join(store, "'q'", _modulo(store, "numbers.n", what.queues))
    spread = f"({_divided(store, 'numbers.n', what.queues)})"
    priority = str(what.priority) if what.priorities == 1 else _modulo(store, spread, what.priorities)
    available = _moment(store, f"({round(what.delay * 1_000_000)} - {what.count} + numbers.n)")
    values = (
        f"{_job_id(store, number)}, {queue}, '{NoOp.name}', {priority}, {_payload(store, number)}, '{{}}', 0, "
        f"{available}, {_moment(store, '0')}"
    )
    statement = f"INSERT INTO queue_jobs ({_COLUMNS}) SELECT {values} FROM {_numbers(start, end)}"
    return statement.replace(":", "\\:")


def _numbers(start: int, end: int) -> str:
    """A table of the numbers from ``start`` to ``end``, without ``end``, in their order."""
    places = range(len(str(end - start - 1)))
    number = " + ".join(f"d{place}.n * {10**place}" for place in places)
    tables = ", ".join(f"({_DIGITS}) AS d{place}" for place in places)
    return f"(SELECT {start} + {number} AS n FROM {tables} WHERE {number} < {end - start} ORDER BY {number}) AS numbers"


def _job_id(store: Store, number: str) -> str:
    """A UUID of version 7 that grows with the number: the number is in its time, a millisecond for every 64, and in its
    last 60 bits."""
    if store.kind == "sqlite":
        # Its ids only have to be of the right size and to grow.
        return f"CAST(printf('%016d', {number}) AS BLOB)"
    milliseconds = f"LPAD(HEX(1750000000000 + {number} DIV 64), 12, '0')"
    return f"UNHEX(CONCAT({milliseconds}, '7', LPAD(HEX({number} MOD 64), 3, '0'), '8', LPAD(HEX({number}), 15, '0')))"


def _fingerprint(store: Store, number: str, groups: int) -> str:
    group = _modulo(store, number, groups)
    return f"printf('%016x', {group})" if store.kind == "sqlite" else f"LPAD(LOWER(HEX({group})), 16, '0')"


def _payload(store: Store, number: str) -> str:
    return _join(store, "'{\"number\": '", number, "'}'")


def _join(store: Store, *parts: str) -> str:
    return " || ".join(parts) if store.kind == "sqlite" else f"CONCAT({', '.join(parts)})"


def _modulo(store: Store, value: str, divisor: int) -> str:
    return f"({value} % {divisor})" if store.kind == "sqlite" else f"({value} MOD {divisor})"


def _divided(store: Store, value: str, divisor: int) -> str:
    return f"{value} / {divisor}" if store.kind == "sqlite" else f"{value} DIV {divisor}"


def _moment(store: Store, microseconds: str) -> str:
    """So many microseconds from now."""
    if store.kind == "sqlite":
        seconds = f"(({microseconds}) / 1000000.0)"
        return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"
    return f"UTC_TIMESTAMP(6) + INTERVAL {microseconds} MICROSECOND"
