"""Tables are upgraded while the release before dispatches and works, and goes on beside this one.

OUTBOX_TEST_MIGRATION_ROWS is the number of rows that the table has besides. With ``-rP``, pytest shows what the upgrade
took, and the longest time between two commits of an application.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from outbox import migrations
from tests.servers import sql
from tests.support.earlier_releases import BEFORE, Release, unpack
from tests.support.fleet import is_retried
from tests.support.table_versions import operations, version
from tests.support.worker_processes import Oracle, WorkerProcess, Workers, numbers, until

ROWS = int(os.environ.get("OUTBOX_TEST_MIGRATION_ROWS", "20000"))
FLAGS = ("--concurrency", "5", "--sleep", "0.1")
SOME = 40
LONG = 150.0
"""Seconds. Of two workers, one may be given few jobs for a while: where little is dispatched, the other takes most."""


class Application:
    """A process that dispatches, with one release or the other."""

    def __init__(self, process: asyncio.subprocess.Process, stop: Path, said: Path) -> None:
        self.process = process
        self.stop = stop
        self.said = said

    def commits(self) -> list[tuple[int, float]]:
        lines = self.said.read_text().splitlines(keepends=True)[1:]
        whole = (line.split() for line in lines if line.endswith("\n"))
        return [(int(number), float(at)) for number, at in whole]

    def release(self) -> Path:
        return Path(self.said.read_text().partition("\n")[0])

    async def ended(self) -> None:
        self.stop.touch()
        code = await self.process.wait()
        assert code == 0, self.said.read_text()[-2000:]


class Fleet(Workers):
    """Workers and applications; those that are started with ``release`` run it instead of this one."""

    def __init__(self, url: str, directory: Path, release: Path) -> None:
        super().__init__(url, directory, "tests.support.fleet")
        self.release = release
        self.is_before = False
        self.applications: list[Application] = []

    def environment(self) -> dict[str, str]:
        environment = super().environment()
        if self.is_before:
            environment["PYTHONPATH"] = os.pathsep.join([str(self.release), environment["PYTHONPATH"]])
        return environment

    async def worker(self, *, before: bool) -> WorkerProcess:
        self.is_before = before
        return await self.started(*FLAGS)

    async def application(self, *, before: bool) -> Application:
        self.is_before = before
        stop, said = self.directory / f"stop-{before}", self.directory / f"said-{before}"
        with said.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.fleet", str(int(before)), str(stop)),
                cwd=self.directory,
                env=self.environment(),
                stdout=output,
                stderr=output,
            )
        self.applications.append(Application(process, stop, said))
        return self.applications[-1]

    async def close(self) -> None:
        for application in self.applications:
            if application.process.returncode is None:
                application.process.kill()
                await application.process.wait()
        await super().close()


@pytest.fixture(params=BEFORE, ids=lambda release: f"tables-{release.tables}")
def before(request: pytest.FixtureRequest) -> Release:
    return request.param


@pytest.fixture
async def fleet(before: Release, database_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(database_url, tmp_path, unpack(before, tmp_path / "before"))
    yield fleet
    await fleet.close()


@pytest.mark.timeout(600)
async def test_no_job_is_lost_or_fails_or_runs_twice(before: Release, fleet: Fleet) -> None:
    with operations(fleet.url) as op:
        migrations.upgrade(op, version=before.tables)
    fill(fleet.url)
    applications = [await fleet.application(before=True), await fleet.application(before=False)]
    worker_before = await fleet.worker(before=True)
    await fleet.oracle.wait("end", SOME)
    begun = time.monotonic()
    await asyncio.to_thread(upgrade, fleet.url)
    ended = time.monotonic()
    runs = len(fleet.oracle.runs())
    counts = [len(application.commits()) for application in applications]
    worker = await fleet.worker(before=False)
    await until(
        lambda: (
            all(len(run_by(fleet.oracle, each, runs)) > SOME for each in (worker_before, worker))
            and all(len(each.commits()) > count + SOME for each, count in zip(applications, counts, strict=True))
        ),
        lambda: (
            f"all of them to go on: they ran {len(run_by(fleet.oracle, worker_before, runs))} and "
            f"{len(run_by(fleet.oracle, worker, runs))}, {[len(each.commits()) for each in applications]} were "
            f"committed after {counts}; the workers said {worker_before.events[-10:]} {worker_before.other[-5:]} "
            f"and {worker.events[-10:]} {worker.other[-5:]}"
        ),
        within=LONG,
    )
    for application in applications:
        await application.ended()
    waits = "queue_jobs WHERE queue = 'default'"
    await until(lambda: count(fleet.url, waits) == 0, lambda: "the last jobs", within=LONG)
    assert [await each.terminate() for each in (worker_before, worker)] == [0, 0]

    assert [application.release().is_relative_to(fleet.release) for application in applications] == [True, False]
    releases = {run.pid: Path(run.error).is_relative_to(fleet.release) for run in fleet.oracle.runs("begin")}
    assert releases == {worker_before.pid: True, worker.pid: False}
    committed = sorted(number for application in applications for number, _ in application.commits())
    assert numbers(fleet.oracle.runs("end")) == committed
    assert numbers(fleet.oracle.runs("begin")) == sorted([*committed, *filter(is_retried, committed)])
    assert count(fleet.url, "queue_failed_jobs") == 0
    assert count(fleet.url, "queue_jobs") == ROWS
    longest = max(longest_gap([at for _, at in application.commits()]) for application in applications)
    print(f"{ROWS:,} rows: upgraded in {ended - begun:.2f} s; at most {longest:.2f} s between two commits")


def upgrade(url: str) -> None:
    with operations(url) as op:
        migrations.upgrade(op, version=migrations.LATEST)
    assert version(url) == migrations.LATEST


def run_by(oracle: Oracle, worker: WorkerProcess, after: int) -> list[int]:
    return [run.number for run in oracle.runs()[after:] if run.what == "end" and run.pid == worker.pid]


def count(url: str, rows: str) -> int:
    with sql.connection(url) as connection:
        return int(connection.scalar(text(f"SELECT COUNT(*) FROM {rows}")))


def longest_gap(moments: list[float]) -> float:
    return max(after - before for before, after in itertools.pairwise(moments))


def fill(url: str) -> None:
    """Rows of jobs that are not due."""
    columns = "id, queue, name, priority, payload, headers, attempts, available_at, created_at"
    with sql.connection(url) as connection:
        new_id = "randomblob(16)" if connection.dialect.name == "sqlite" else "RANDOM_BYTES(16)"
        values = (
            f"{new_id}, 'later', 'fleet.Numbered', 5, '{{}}', '{{}}', 0, '2999-01-01 00:00:00', '2026-01-01 00:00:00'"
        )
        connection.execute(text(f"INSERT INTO queue_jobs ({columns}) SELECT {values}"))
        rows = 1
        while rows < ROWS:
            more = min(rows, ROWS - rows)
            connection.execute(text(f"INSERT INTO queue_jobs ({columns}) SELECT {values} FROM queue_jobs LIMIT {more}"))
            rows += more
