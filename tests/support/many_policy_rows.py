"""Rows of policies by the hundred thousand, made by servers of MySQL and MariaDB themselves."""

from __future__ import annotations

from outbox.drivers.database import DatabaseDriver
from outbox.ids import JobId, new_job_id
from outbox.policies.batch import BatchPlan
from tests.support.commands import execute
from tests.support.many_rows import insert_rows, row_id

_KEYED = "queue_keyed_jobs (job_id, kind, key_hash, state, moment, size, name)"
_ORDERING, _PARKED, _BLOCKING = 1, 1, 3


async def fill_behind_keys(driver: DatabaseDriver, count: int) -> None:
    """Let ``count`` more jobs wait under each ordering key that there is, before those that wait now."""
    async with driver.database.engine.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT DISTINCT HEX(key_hash), name FROM queue_keyed_jobs")
        keys = [(str(key), str(name)) for key, name in rows]
    for key, name in keys:
        values = f"{row_id(driver)}, {_ORDERING}, x'{key}', {_PARKED}, '2020-01-01', 1, '{name}'"
        await insert_rows(driver, _KEYED, values, count)


async def block_keys(driver: DatabaseDriver) -> None:
    """Give each failed job an ordering key of its own, which one in 256 of them blocks."""
    state = f"CASE WHEN RIGHT(HEX(id), 2) = '00' THEN {_BLOCKING} ELSE {_PARKED} END"
    await execute(
        driver,
        f"INSERT INTO {_KEYED} SELECT id, {_ORDERING}, id, {state}, failed_at, 1, HEX(id) FROM queue_failed_jobs",
    )


async def fill_waits(driver: DatabaseDriver, count: int, rates: int) -> None:
    """Let ``count`` jobs wait for the limits of ``rates`` keys."""
    rate = f"UNHEX(LPAD(HEX(MOD(n, {rates})), 32, '0'))"
    columns = "queue_rates (id, name, key_name, rate, arrival, used)"
    await insert_rows(driver, columns, f"{rate}, 'tests.Paced', CONCAT('key:', n), '1/h', 0, 0", rates)
    values = f"{row_id(driver)}, {rate}, 0, 1"
    await insert_rows(driver, "queue_rate_waits (job_id, rate_id, state, cost)", values, count)


async def fill_batches(driver: DatabaseDriver, batches: int, outstanding: int, failed: int) -> JobId:
    """Open batches with so many members; the latest of them."""
    ids = [new_job_id() for _ in range(batches)]
    plan = BatchPlan(total=outstanding + failed).model_dump_json()
    for batch_id in ids:
        await execute(
            driver,
            "INSERT INTO queue_batches (id, name, total, plan, ran, created_at) "
            f"VALUES (x'{batch_id.hex}', 'many', {outstanding + failed}, :plan, 0, UTC_TIMESTAMP(6))",
            plan=plan,
        )
        for table, count in (("members", outstanding), ("failures", failed)):
            values = f"x'{batch_id.hex}', {row_id(driver)}"
            await insert_rows(driver, f"queue_batch_{table} (batch_id, member_id)", values, count)
    return ids[-1]
