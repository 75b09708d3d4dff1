"""`alembic upgrade head` and `downgrade base`, as an operator runs them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import create_async_engine

import outbox
from tests.support.python_process import run_python

ROOT = Path(__file__).parents[3]
FIRST = {"queue_jobs", "queue_failed_jobs", "queue_workers", "queue_pauses"}
OURS = FIRST | {
    "queue_audit",
    "queue_batch_additions",
    "queue_batch_failures",
    "queue_batch_members",
    "queue_batches",
    "queue_breakers",
    "queue_finished_jobs",
    "queue_inbox",
    "queue_inbox_slots",
    "queue_job_pauses",
    "queue_key_slots",
    "queue_keyed_jobs",
    "queue_limits",
    "queue_lock_slots",
    "queue_metrics",
    "queue_operations",
    "queue_paused_jobs",
    "queue_progress",
    "queue_rate_slots",
    "queue_rate_waits",
    "queue_rates",
    "queue_schedule_ticks",
    "queue_schedules",
    "queue_unique",
    "queue_unique_jobs",
    "queue_unique_running",
}


def alembic(url: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "alembic", *arguments, cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, check=check)


async def tables(url: str) -> set[str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return set(found)


async def test_up_and_down_again(database_url: str) -> None:
    alembic(database_url, "upgrade", "head")
    assert await tables(database_url) >= OURS
    alembic(database_url, "downgrade", "base")
    assert await tables(database_url) == {"alembic_version"}
    alembic(database_url, "upgrade", "head")
    assert await tables(database_url) >= OURS


async def test_autogenerate_finds_no_difference(database_url: str) -> None:
    alembic(database_url, "upgrade", "head")
    checked = alembic(database_url, "check", check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_the_example_applications_tables_come_second_and_stand_alone(database_url: str) -> None:
    alembic(database_url, "upgrade", "0001")
    assert await tables(database_url) == FIRST | {"alembic_version"}
    source = next((ROOT / "migrations" / "versions").glob("0002*")).read_text()
    imports = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert {name.split(".")[0] for name in imports} <= {"__future__", "sqlalchemy", "alembic"}


async def test_the_migrations_and_the_metadata_make_the_same_tables(database_url: str) -> None:
    """An application that has outbox's tables from `outbox.metadata` has what the migrations would have made."""
    alembic(database_url, "upgrade", "head")
    migrated = await describe(database_url)
    alembic(database_url, "downgrade", "base")
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(outbox.metadata.create_all)
    await engine.dispose()
    assert await describe(database_url) == migrated


async def describe(url: str) -> dict[str, object]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:

        def read(sync: object) -> dict[str, object]:
            inspector = inspect(sync)
            return {
                name: (
                    [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)],
                    sorted((i["name"], tuple(i["column_names"])) for i in inspector.get_indexes(name)),
                    inspector.get_pk_constraint(name)["constrained_columns"],
                )
                for name in OURS
            }

        described = await connection.run_sync(read)
    await engine.dispose()
    return described


def test_the_sql_can_be_printed_for_a_database_administrator() -> None:
    printed = alembic("mysql+asyncmy://nobody@127.0.0.1:1/nothing", "upgrade", "0001", "--sql")
    assert "CREATE TABLE queue_jobs" in printed.stdout


def test_the_names_of_the_metadata_are_fixed() -> None:
    assert set(outbox.metadata.tables) == OURS


@pytest.mark.parametrize("url", ["postgresql+asyncpg://u@h/d"])
def test_a_database_that_cannot_work_is_refused(url: str) -> None:
    refused = alembic(url, "upgrade", "head", check=False)
    assert refused.returncode != 0
