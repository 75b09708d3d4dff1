"""`outbox batches`, and what `outbox show` says of a member."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import outbox
from outbox import Batch, Job, dispatch_batch
from outbox.drivers.database import DatabaseDriver
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE
from tests.support.commands import run


class Part(Job):
    async def handle(self) -> None: ...


@pytest.fixture
async def driver(migrated_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[DatabaseDriver]:
    monkeypatch.chdir(tmp_path)  # away from this project's own settings
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()
    await outbox.disconnect()


async def test_a_batch_is_listed_shown_retried_and_cancelled(driver: DatabaseDriver, migrated_url: str) -> None:
    assert (await run(migrated_url, "batches", "list")).out == "No batches.\n"
    batch_id = await dispatch_batch([Part(), Part(), Batch([Part()], name="inner")], name="import")
    [claim] = await driver.jobs.claim(["default"], 1, 30)
    await driver.jobs.settle([Settlement.failed(claim.fence, FAILURE).leaving(claim.policies or 0, claim.headers)])
    [waiting, *_] = await driver.jobs.list_jobs()
    assert f"member of the batch `import` {batch_id}" in (await run(migrated_url, "show", str(waiting.id))).out

    listed = (await run(migrated_url, "batches")).out.splitlines()
    assert f"{batch_id}  open       3 jobs, 2 left, 1 failed  import" in listed
    shown = (await run(migrated_url, "batches", "show", str(batch_id), "--json")).document
    assert (shown["name"], shown["state"], shown["total"], shown["failed"], shown["outstanding"]) == (
        "import", "open", 3, 1, 2,
    )  # fmt: skip
    text = (await run(migrated_url, "batches", "show", str(batch_id))).out
    assert "state          open" in text

    assert (await run(migrated_url, "batches", "retry", str(batch_id))).out == "Retried 1 failed job.\n"
    assert (await run(migrated_url, "batches", "cancel", str(batch_id))).out == "Cancelled.\n"
    assert await driver.jobs.list_jobs() == []
    again = await run(migrated_url, "batches", "cancel", str(batch_id))
    assert (again.code, again.out) == (1, "It has ended, or was cancelled already.\n")


async def test_an_unknown_batch(driver: DatabaseDriver, migrated_url: str) -> None:
    for verb in ("show", "cancel", "retry"):
        ran = await run(migrated_url, "batches", verb, "01890000-0000-7000-8000-000000000000")
        assert ran.code == 1
        assert "there is no batch 01890000" in ran.err
    assert (await run(migrated_url, "batches", "show", "nonsense")).code == 2
