"""Running the operator's commands, and making what they look at."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from sqlalchemy import text

from outbox.__main__ import cli
from outbox.drivers.base import Driver
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.values import Claim
from outbox.envelope import Envelope
from outbox.settlement import Failure, Settlement
from tests.support.python_process import ROOT, start_python

REFUSED = Failure("ConnectionRefusedError", "[Errno 111] smtp.example.org", "Traceback (most recent call last): …\n")


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


async def run(url: str, *arguments: str) -> Ran:
    """The command in this process, without a terminal; in a thread, because it has an event loop of its own."""
    runner = CliRunner(env={"DATABASE_URL": url})
    result = await asyncio.to_thread(runner.invoke, cli, arguments, catch_exceptions=False)
    return Ran(result.exit_code, result.stdout, result.stderr)


async def run_process(
    directory: Path, *arguments: str, program: Sequence[str] = ("-m", "outbox"), **environment: str
) -> Ran:
    """The command as a process of its own in ``directory``, without a terminal."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    process = await start_python(*program, *arguments, cwd=directory, env=env)
    out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


async def fail(driver: Driver, *jobs: Envelope, failure: Failure = REFUSED) -> list[Claim]:
    """Dispatch jobs and let a worker fail them."""
    await driver.jobs.insert(jobs)
    claims: list[Claim] = []
    for queue in sorted({job.queue for job in jobs}):
        claims += await driver.jobs.claim([queue], len(jobs), 30)
    assert len(claims) == len(jobs)
    await driver.jobs.settle([Settlement.failed(claim.fence, failure) for claim in claims])
    return claims


async def execute(driver: DatabaseDriver, statement: str, **parameters: Any) -> None:
    """One statement past the driver, as an operator with a database client would send it."""
    async with driver.database.engine.connect() as connection:
        await connection.execute(text(statement), parameters)
        await connection.commit()


async def break_payload(driver: DatabaseDriver, claim: Claim, payload: str) -> None:
    """What a failed row can hold and a live row cannot."""
    await execute(
        driver,
        "UPDATE queue_failed_jobs SET payload = :payload WHERE id = :id",
        payload=payload,
        id=claim.fence.job_id.bytes,
    )


async def age_failure(driver: DatabaseDriver, claim: Claim, seconds: float) -> None:
    """Let a job have failed ``seconds`` ago, by the database's clock."""
    then = driver.database.dialect.now_plus(str(int(-seconds * 1e6)))
    # Through the driver, because SQLite's format of a moment looks like a parameter to SQLAlchemy.
    mark = driver.database.dialect.placeholder
    async with driver.database.engine.connect() as connection:
        await connection.exec_driver_sql(
            f"UPDATE queue_failed_jobs SET failed_at = {then} WHERE id = {mark}", (claim.fence.job_id.bytes,)
        )
        await connection.commit()
