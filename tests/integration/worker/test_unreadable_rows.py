"""Rows that the database accepts and outbox would not write.

Each becomes a failed job as it is, the jobs beside it run, and no command is kept from showing them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.redis import RedisDriver
from outbox.drivers.values import FailedJob
from outbox.envelope import serialize
from outbox.ids import new_job_id
from outbox.relay.relay import Relay
from tests.conformance.jobs import claim_one, envelope
from tests.servers.sql import connection
from tests.support.commands import run
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import Workers, numbers

SQLITE, SERVERS = ("sqlite",), ("mysql", "mariadb")
EVERYWHERE = SQLITE + SERVERS
GOOD = 3
FLAGS = ("--stop-when-empty", "--sleep", "0.05", "--concurrency", "2")


@dataclass(frozen=True)
class Row:
    """What is wrong in one column, as SQL, and what the failed job says of it."""

    says: str
    columns: dict[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = EVERYWHERE
    drop_not_null: bool = False


def sqlite(says: str, **columns: str) -> Row:
    return Row(says, columns, SQLITE)


def servers(says: str, **columns: str) -> Row:
    return Row(says, columns, SERVERS)


NO_DATE = "available_at holds no date"
ROWS = [
    Row("priority is not a whole number from 0 to 9: 10", {"priority": "10"}),
    Row("priority is not a whole number from 0 to 9: 65535", {"priority": "65535"}),
    Row("no worker can drain a queue of this name", {"queue": "'Mail Box'"}),
    Row("no worker can drain a queue of this name", {"queue": "''"}),
    servers(NO_DATE, available_at="'0000-00-00 00:00:00'"),
    servers(NO_DATE, available_at="'2026-00-10 00:00:00'"),
    servers(NO_DATE, available_at="'2023-02-31 00:00:00'"),
    Row("holds no end of a lease", {"reserved_by": "x'00'", "reserved_until": "'9999-12-31 00:00:00'"}),
    sqlite(NO_DATE, available_at="'0000-00-00 00:00:00'"),
    sqlite(NO_DATE, available_at="'tomorrow'"),
    sqlite(NO_DATE, available_at="'12026-01-01 00:00:00'"),
    sqlite(NO_DATE, available_at="'99999-01-01 00:00:00'"),
    sqlite(NO_DATE, available_at="1700000000"),
    sqlite(NO_DATE, available_at="x'32303236'"),
    sqlite("holds no end of a lease", reserved_by="'me'", reserved_until="'for ever'"),
    sqlite("holds no end of a lease", reserved_by="7", reserved_until="x'ff'"),
    sqlite("id is not 16 bytes: 7", id="7"),
    sqlite("id is not 16 bytes: 1000000000000", id="1000000000000"),
    sqlite("id is not 16 bytes: 'a text'", id="'a text'"),
    sqlite("id is not 16 bytes", id="CAST(x'ff' AS TEXT)"),
    sqlite("id is not 16 bytes: b'short'", id="CAST('short' AS BLOB)"),
    sqlite("id is not 16 bytes: b'0123456789abcdefg'", id="CAST('0123456789abcdefg' AS BLOB)"),
    sqlite("attempts are not a whole number", attempts="'many'"),
    sqlite("attempts are not a whole number", attempts="1.5"),
    sqlite("attempts are not a whole number", attempts="-1"),
    sqlite("attempts are not a whole number", attempts="9000000000"),
    sqlite("priority is not a whole number", priority="-1"),
    sqlite("priority is not a whole number", priority="4.5"),
    sqlite("priority is not a whole number", priority="'high'"),
    sqlite("priority is not a whole number", priority="x'05'"),
    sqlite("column payload holds no text", payload="""CAST('{"number": 1}' AS BLOB)"""),
    sqlite("column payload holds no text", payload="x'fffe'"),
    sqlite("column payload holds no text", payload="7"),
    sqlite("column headers holds no text", headers="CAST('{}' AS BLOB)"),
    sqlite("column name holds no text", name="CAST('tests.support.recorded_jobs.Counted' AS BLOB)"),
    sqlite("column name holds no text", name="CAST(x'fffe' AS TEXT)"),
    sqlite("no worker can drain a queue of this name", queue="CAST('default' AS BLOB)"),
    *(
        Row(says, {column: "NULL"}, drop_not_null=True)
        for column, says in {
            "queue": "no worker can drain",
            "name": "column name holds no text: NULL",
            "priority": "priority is not a whole number from 0 to 9: NULL",
            "payload": "column payload holds no text: NULL",
            "headers": "column headers holds no text: NULL",
            "attempts": "attempts are not a whole number",
            "available_at": f"{NO_DATE}: NULL",
        }.items()
    ),
]
WORKER = "id, name, host, pid, queues, concurrency, running, processed, failed, started_at, seen_at"
DROPPED = ("queue", "name", "priority", "payload", "headers", "attempts", "available_at", "created_at")


def drop_not_null(database: Any, backend: str) -> None:
    if backend != "sqlite":
        kinds = {row[0]: row[1] for row in database.execute(text("SHOW COLUMNS FROM queue_jobs"))}
        changes = ", ".join(f"MODIFY {column} {kinds[column]} NULL" for column in DROPPED)
        database.execute(text(f"ALTER TABLE queue_jobs {changes}"))
        return
    made = database.execute(text("SELECT sql FROM sqlite_master WHERE name = 'queue_jobs'")).scalar_one()
    database.execute(text("DROP TABLE queue_jobs"))
    database.execute(text(made.replace("NOT NULL", "")))
    database.execute(text("CREATE INDEX queue_jobs_claim ON queue_jobs (queue, priority, available_at)"))


def put(database: Any, backend: str, columns: dict[str, str], number: int) -> None:
    now = "'2026-01-01 00:00:00.000000'"
    values = {
        "id": f"x'{new_job_id().hex}'",
        "queue": "'default'",
        "name": "'tests.support.recorded_jobs.Counted'",
        "priority": "5",
        "payload": f"""'{{"number" : {number}}}'""",
        "headers": "'{}'",
        "attempts": "0",
        "available_at": now,
        "reserved_by": "NULL",
        "reserved_until": "NULL",
        "created_at": now,
    } | columns
    database.exec_driver_sql(f"INSERT INTO queue_jobs ({', '.join(values)}) VALUES ({', '.join(values.values())})")


def write(url: str, backend: str, rows: list[Row]) -> None:
    with connection(url) as database:
        if backend != "sqlite":
            database.execute(text("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"))
        if any(row.drop_not_null for row in rows):
            drop_not_null(database, backend)
        for number, row in enumerate(rows, 100):
            put(database, backend, row.columns, number)


@pytest.fixture
async def workers(migrated_url: str, backend: str, tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(migrated_url, tmp_path)
    yield workers
    await workers.close()


async def test_each_fails_with_a_reason_and_the_others_run(
    workers: Workers, database: DatabaseDriver, migrated_url: str, backend: str
) -> None:
    rows = [row for row in ROWS if backend in row.only]
    write(migrated_url, backend, rows)
    await database.jobs.insert([serialize(Counted(number=number)) for number in range(GOOD)])
    worker = await workers.start(*FLAGS)
    assert await worker.exit_code() == 0, worker.other
    assert worker.other == []
    assert numbers(workers.oracle.runs("end")) == list(range(GOOD))
    assert await database.jobs.list_jobs() == []
    failed = await database.failed.page(limit=1000)
    messages = sorted(job.failure.message for job in failed)
    assert len(failed) == len(rows), messages
    for row in rows:
        assert any(row.says in message for message in messages), (row, messages)
    assert {job.failure.type for job in failed} == {"outbox.errors.InvalidPayload"}
    payloads = {job.payload for job in failed}
    for number, row in enumerate(rows, 100):
        if "payload" not in row.columns:
            assert any(str(number) in payload for payload in payloads), row

    # Every command shows them, and retries what can run: nothing of it was wrong but what a retry puts right.
    listed = await run(migrated_url, "failed", "--limit", "1000")
    assert (listed.code, len(listed.out.splitlines())) == (0, len(rows) + 1)
    for command in (("failed", "--json"), ("stats",), ("workers",), ("check",), ("failed", str(failed[0].id))):
        assert (await run(migrated_url, *command)).code == 0, command
    assert (await run(migrated_url, "retry", "--all")).code == 0
    worker = await workers.start(*FLAGS)
    assert await worker.exit_code() == 0, worker.other
    left = await database.failed.page(limit=1000)
    ran = {each.number for each in workers.oracle.runs("end")} - set(range(GOOD))
    assert ran >= {100, 101}, "a priority that no claim reads is 5 when it is retried"
    assert len(left) < len(failed)
    assert await database.jobs.list_jobs() == []


async def test_commands_show_live_rows_beside_them(database: DatabaseDriver, migrated_url: str, backend: str) -> None:
    write(migrated_url, backend, [row for row in ROWS if backend in row.only and not row.drop_not_null])
    good = serialize(Counted(number=1))
    await database.jobs.insert([good])
    for command in (("stats",), ("stats", "--json"), ("check",), ("failed",), ("workers",), ("monitor", "--once")):
        shown = await run(migrated_url, *command)
        assert "Traceback" not in shown.out + shown.err, command
    assert good.id in {job.id for job in await database.jobs.list_jobs(limit=1000)}
    assert await database.jobs.get(good.id) is not None
    assert good.id in await database.jobs.find(good.id.hex[-12:])
    assert (await run(migrated_url, "cancel", str(good.id))).code == 0
    assert (await run(migrated_url, "clear", "default", "--yes")).code == 0


async def test_broken_rows_of_the_other_tables_hide_nothing(
    database: DatabaseDriver, migrated_url: str, backend: str
) -> None:
    await database.jobs.insert([envelope()])
    claim = await claim_one(database)
    from outbox.settlement import Failure, Settlement

    await database.jobs.settle([Settlement.failed(claim.fence, Failure("ValueError", "no", ""))])
    bad = ["'0000-00-00 00:00:00'"] if backend != "sqlite" else ["'nonsense'", "7", "x'ff'"]
    with connection(migrated_url) as opened:
        if backend != "sqlite":
            opened.execute(text("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"))
        for number, moment in enumerate(bad):
            identity = f"x'{new_job_id().hex}'"
            opened.exec_driver_sql(
                f"INSERT INTO queue_failed_jobs VALUES ({identity}, 'database', 'default', 'a', 77, 'x', 'y', 1, "
                f"'[1]', {moment}, NULL, NULL)"
            )
            opened.exec_driver_sql(
                f"INSERT INTO queue_workers ({WORKER}) VALUES "
                f"({identity}, 'n', 'h', 1, 'q', 1, 1, 1, 1, {moment}, {moment})"
            )
            opened.exec_driver_sql(f"INSERT INTO queue_pauses (queue, paused_at) VALUES ('q{number}', {moment})")
        if backend == "sqlite":
            opened.exec_driver_sql(
                "INSERT INTO queue_failed_jobs VALUES "
                "(7, x'ff', x'ff', x'ff', 'x', x'ff', x'ff', 'y', x'ff', x'ff', x'ff', 'f')"
            )
            opened.exec_driver_sql(
                f"INSERT INTO queue_workers ({WORKER}) VALUES "
                f"('w', x'ff', x'ff', 'p', x'ff', 'c', 'r', 'p', 'f', 'x', 'y')"
            )
            opened.exec_driver_sql("INSERT INTO queue_pauses (queue, paused_at) VALUES (x'ff', 'x')")
            opened.exec_driver_sql(
                "INSERT INTO queue_job_pauses (id, kind, name, reason, paused_at, paused_until, probe) "
                "VALUES ('w', 'x', x'ff', x'ff', 'y', 'zz', 'q'), (7, 1, 7, 7, 'y', NULL, 3)"
            )
    await database.jobs.insert([envelope(queue="claimed")])
    assert await claim_one(database, "claimed")
    assert claim.fence.job_id in {job.id for job in await database.failed.page()}
    assert len(await database.workers.all()) >= len(bad)
    for command in (("stats",), ("failed",), ("failed", "--json"), ("workers",), ("workers", "--json"), ("check",)):
        shown = await run(migrated_url, *command)
        assert shown.code == 0, (command, shown)
    by_id = await run(migrated_url, "retry", str(claim.fence.job_id))
    assert (by_id.code, by_id.out) == (0, "Retried 1 failed job.\n")
    assert (await run(migrated_url, "prune")).code == 0
    assert (await run(migrated_url, "flush", "--yes")).code == 0


# --- on their way to Redis


async def test_the_relay_moves_on_what_is_beside_them(
    database: DatabaseDriver, redis: RedisDriver, migrated_url: str, backend: str
) -> None:
    relay = Relay(database, redis, "redis")
    rows = [row for row in ROWS if backend in row.only and not row.drop_not_null and "queue" not in row.columns]
    headers = """'{"relayed_to": "default"}'"""
    rows = [Row(row.says, {"queue": f"'{relay.queue}'", "headers": headers, **row.columns}, row.only) for row in rows]
    write(migrated_url, backend, rows)
    with connection(migrated_url) as opened:
        if backend == "sqlite":
            surrogates = """CAST(x'7b226e223a2022ff227d' AS TEXT)"""
            put(opened, backend, {"queue": f"'{relay.queue}'", "headers": headers, "payload": surrogates}, 1)
        else:
            opened.execute(text("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"))
        delayed = """'{"relayed_to": "default", "relayed_delay": 0.1}'"""
        created = "'0000-00-00 00:00:00'" if backend != "sqlite" else "'nonsense'"
        put(opened, backend, {"queue": f"'{relay.queue}'", "headers": delayed, "created_at": created}, 2)
        put(opened, backend, {"queue": f"'{relay.queue}'", "headers": headers}, 3)
    await database.jobs.fail_unreadable()
    while await relay.move():
        pass
    there = {job.payload for job in await redis.jobs.list_jobs()}
    assert there == {'{"number" : 2}', '{"number" : 3}'} or there == {'{"number": 2}', '{"number": 3}'}
    failed = await database.failed.page(limit=1000)
    assert len(failed) == len(rows) + (backend == "sqlite")


# --- in Redis


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


def by_says(failed: list[FailedJob], says: str) -> list[FailedJob]:
    return [job for job in failed if says in job.failure.message]


async def test_jobs_of_redis_that_cannot_be_read(redis: RedisDriver, raw: Redis) -> None:
    zset, jobs, held, tries = (f"outbox:{{default}}:{suffix}" for suffix in ("5", "jobs", "held", "tries"))
    await raw.zadd(zset, {b"short": 1, b"much longer than an id": 2, new_job_id().bytes: 3})
    await raw.hset(jobs, "short", b"1\nname\n{}\n{}")
    await raw.set("outbox:{default}:3", "somebody's string")
    garbled, tried, empty = (new_job_id() for _ in range(3))
    for job_id in (garbled, tried):
        await raw.zadd(zset, {job_id.bytes: 4})
        await raw.hset(jobs, job_id.bytes, b"\xff\nname\n{}\n{}")
    await raw.zadd(zset, {empty.bytes: 5})
    await raw.hset(jobs, empty.bytes, b"")
    await raw.hset(held, garbled.bytes, b"junk")
    await raw.hset(tries, tried.bytes, b"junk")
    good = envelope()
    await redis.jobs.insert([envelope()])
    await raw.zadd(zset, {good.id.bytes: 9})
    await raw.hset(jobs, good.id.bytes, b"1\ntests.Good\n{}\n{}")
    claims = []
    while found := await redis.jobs.claim(["default"], 2, 30) or await redis.jobs.claim(["default"], 2, 30):
        claims += found
    assert {claim.fence.job_id for claim in claims} > {garbled, tried, empty, good.id}
    assert (await redis.jobs.next_due(["default"])).due is not None
    failed = await redis.failed.page()
    assert len(failed) == 3
    [short] = by_says(failed, b"short".hex())
    assert (short.payload, short.name, short.connection) == ("{}", "name", "redis")
    assert len(by_says(failed, "nothing in the hash")) == 2
    assert await redis.failed.retry([short.id]) == [short.id]
    assert [claim.fence.job_id for claim in await redis.jobs.claim(["default"], 9, 30)] == [short.id]


async def test_broken_records_of_redis_hide_nothing(redis: RedisDriver, raw: Redis) -> None:
    await raw.sadd("outbox:queues", "default")
    await raw.zadd("outbox:{default}:failed", {b"short": 1, new_job_id().bytes: 2, new_job_id().bytes: 3})
    for member in await raw.zrange("outbox:{default}:failed", 0, -1):
        await raw.hset("outbox:{default}:failures", member, b"junk")
    await raw.zadd("outbox:{default}:5", {b"short": 1})
    await raw.zadd("outbox:{:workers}:seen", {b"a": 1, b"b": 2})
    await raw.hset("outbox:{:workers}:rows", mapping={"a": b"junk", "b": b'1\n{"name": "b", "more": 1}'})
    assert len(await redis.failed.page()) == 2
    assert await redis.jobs.list_jobs() == []
    assert {worker.name for worker in await redis.workers.all()} == {"", "b"}
    assert [counts.failed for counts in await redis.queues.counts()] == [3]
    assert await redis.jobs.find("0") is not None
