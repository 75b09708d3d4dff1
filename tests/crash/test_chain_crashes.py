"""A chain whose worker is killed at every step: each job is inserted exactly once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text

import outbox
from outbox import dispatch_batch, dispatch_chain
from outbox.drivers.database import DatabaseDriver
from tests.crash.chained import Step, Then
from tests.servers import sql
from tests.support.worker_processes import Workers, until

pytestmark = pytest.mark.timeout(120)

_STEPS = 4


async def test_each_job_of_a_chain_is_inserted_exactly_once(
    migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    await dispatch_chain([Step(number=number) for number in range(_STEPS)])
    await outbox.disconnect()
    workers = Workers(migrated_url, tmp_path, "tests.crash.chained")
    while _left(migrated_url):
        worker = await workers.start("--lease", "1", "--sleep", "0.1", "--processes", "1")
        await until(lambda worker=worker: worker.process.returncode is not None)  # type: ignore[misc]
    await workers.close()
    begun = workers.oracle.runs("begin")
    assert [run.number for run in begun] == [number for number in range(_STEPS) for _ in range(2)]
    assert [run.error for run in begun[::2]] == ["None", *map(str, range(_STEPS - 1))]
    assert set(Counter(run.id for run in begun).values()) == {2}, "a job was inserted twice"


async def test_a_batch_ends_once_after_the_last_job_of_a_chain(
    migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker dies before the end of each job of the chain is written, and right after: so also between the end of
    the last and that of the batch."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    await dispatch_batch([[Step(number=number) for number in range(_STEPS)]], then=Then())
    await outbox.disconnect()
    workers = Workers(migrated_url, tmp_path, "tests.crash.chained")
    database = DatabaseDriver(migrated_url)
    while _left(migrated_url):
        worker = await workers.start("--lease", "1", "--sleep", "0.1", "--processes", "1")
        await until(lambda worker=worker: worker.process.returncode is not None)  # type: ignore[misc]
        await database.policies.upkeep()
    await workers.close()
    await database.policies.upkeep()
    [status] = await database.policies.batches(1)
    await database.close()
    assert not _left(migrated_url)
    assert (status.state, status.total, status.failed, status.outstanding) == ("finished", 1, 0, 0)
    begun, then = workers.oracle.runs("begin"), workers.oracle.runs("then")
    assert [run.number for run in begun] == [number for number in range(_STEPS) for _ in range(2)]
    assert set(Counter(run.id for run in begun).values()) == {2}, "a job was inserted twice"
    assert [run.at > begun[-1].at for run in then] == [True]


def _left(url: str) -> int:
    with sql.connection(url) as connection:
        return int(connection.scalar(text("SELECT COUNT(*) FROM queue_jobs")) or 0)
