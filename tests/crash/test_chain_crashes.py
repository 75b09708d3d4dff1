"""A chain whose worker is killed at every step: each job is inserted exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy import text

import outbox
from outbox import dispatch_batch, dispatch_chain
from outbox.drivers.database import DatabaseDriver
from tests.crash.chained import Step, Then
from tests.crash.harness import UNHURRIED, end_leases
from tests.servers import sql
from tests.support.worker_processes import Run, Workers, until

_STEPS = 4


async def test_each_job_of_a_chain_is_inserted_exactly_once(
    migrated_url: str, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    await dispatch_chain([Step(number=number) for number in range(_STEPS)])
    await outbox.disconnect()
    workers.modules = "tests.crash.chained"
    database = DatabaseDriver(migrated_url)
    while _left(migrated_url):
        await _killed_worker(workers, database)
    await database.close()
    _check_steps(workers.oracle.runs("begin"))


async def test_a_batch_ends_once_after_the_last_job_of_a_chain(
    migrated_url: str, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker dies before the end of each job of the chain is written, and right after: so also between the end of
    the last and that of the batch."""
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    await dispatch_batch([[Step(number=number) for number in range(_STEPS)]], then=Then())
    await outbox.disconnect()
    workers.modules = "tests.crash.chained"
    database = DatabaseDriver(migrated_url)
    while _left(migrated_url):
        await _killed_worker(workers, database)
        await database.policies.upkeep()
    await database.policies.upkeep()
    [status] = await database.policies.batches(1)
    await database.close()
    assert not _left(migrated_url)
    assert (status.state, status.total, status.failed, status.outstanding) == ("finished", 1, 0, 0)
    begun, then = workers.oracle.runs("begin"), workers.oracle.runs("then")
    _check_steps(begun)
    assert [run.at > begun[-1].at for run in then] == [True]


async def _killed_worker(workers: Workers, database: DatabaseDriver) -> None:
    worker = await workers.start(*UNHURRIED, "--processes", "1")
    await until(lambda: worker.process.returncode is not None)
    await end_leases(database)


def _check_steps(begun: Sequence[Run]) -> None:
    """Each was inserted once, after the end of the one before, with its result. It began twice, or once: the worker
    that died after that end may have claimed it already, and then its first attempt never begins."""
    numbers = [run.number for run in begun]
    assert numbers == sorted(numbers)
    assert set(Counter(numbers).values()) <= {1, 2}
    jobs = sorted({(run.number, run.error) for run in begun})
    assert jobs == list(enumerate(["None", *map(str, range(_STEPS - 1))]))
    assert len({run.id for run in begun}) == _STEPS, "a job was inserted twice"


def _left(url: str) -> int:
    with sql.connection(url) as connection:
        return int(connection.scalar(text("SELECT COUNT(*) FROM queue_jobs")) or 0)
