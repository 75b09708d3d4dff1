"""Batches under kills: none stalls, and what follows one is inserted once."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from sqlalchemy import text

import outbox
from outbox import dispatch_batch
from outbox.drivers.database import DatabaseDriver
from tests.crash.batched import Member, Then
from tests.servers import sql
from tests.support.worker_processes import Workers, until

pytestmark = pytest.mark.timeout(900)

_BATCHES = int(os.environ.get("OUTBOX_TEST_BATCHES", "40"))
"""1,000 is the full size."""
_MEMBERS = 20
_KILLS = 5


async def test_batches_survive_their_workers(
    migrated_url: str, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    for number in range(_BATCHES):
        await dispatch_batch([Member(number=number) for _ in range(_MEMBERS)], then=Then(number=number))
    await outbox.disconnect()
    workers.modules = "tests.crash.batched"
    total = _BATCHES * _MEMBERS
    for kill in range(_KILLS):
        worker = await workers.started("--lease", "1.5", "--sleep", "0.1")
        goal = total * (kill + 1) // (_KILLS + 1)
        await until(lambda goal=goal: len(workers.oracle.runs("member")) >= goal)  # type: ignore[misc]
        await worker.kill()
    await workers.started("--lease", "1.5", "--sleep", "0.1")
    await until(lambda: _open_members(migrated_url) == 0)
    # What a crash left between the last settlement of a batch and its end.
    database = DatabaseDriver(migrated_url)
    await database.policies.upkeep()
    await database.close()
    await until(lambda: len({run.number for run in workers.oracle.runs("then")}) == _BATCHES)
    then = workers.oracle.runs("then")
    ids = {run.id for run in then}
    assert len(ids) == _BATCHES, "one job follows each batch"
    assert max(Counter((run.id, run.attempt) for run in then).values()) == 1, "it was inserted twice"
    assert len({run.id for run in workers.oracle.runs("member")}) == total


def _open_members(url: str) -> int:
    with sql.connection(url) as connection:
        return int(connection.scalar(text("SELECT COUNT(*) FROM queue_batch_members")) or 0)
