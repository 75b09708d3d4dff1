"""A new column of `queue_jobs` is written, claimed, kept by a failed job and put back by a retry, when it is added to
`tables.py` alone: no statement has a list of columns of its own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio, sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import outbox
from outbox.ids import new_job_id

source = Path(outbox.__file__).parent / "drivers/database/tables.py"
text = source.read_text()
live = '    Column("tenant", ascii_text(64), info=_BOTH),\\n'
live += '    Column("priority", small(), nullable=False, info=_BOTH),'
kept = '    Column("tenant", ascii_text(64)),\\n    Column("priority", small(), nullable=False),'
for column in (live, kept):
    without = column.partition("\\n")[2]
    assert text.count(without) == 1
    text = text.replace(without, column)
tables = sys.modules["outbox.drivers.database.tables"]
exec(compile(text, str(source), "exec"), tables.__dict__)

for name in [name for name in sys.modules if name.startswith("outbox.drivers.database") and name != tables.__name__]:
    del sys.modules[name]
from outbox.drivers.database.driver import DatabaseDriver
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.engine import parse_url
from outbox.settlement import Failure, Settlement


class Envelope(SimpleNamespace):
    queue, name, priority, payload, headers, delay = "default", "n", 5, "{}", "{}", 0
    available_at = policies = None


async def main(url):
    if url.startswith("sqlite"):
        Path(url.partition(":///")[2]).touch()
    database, driver = Database(parse_url(url)), DatabaseDriver(url)
    async with database.engine.begin() as connection:
        await connection.run_sync(tables.metadata.create_all)
    # As many as are written one by one, and as many as MySQL reads from a document.
    for count in (1, 40):
        await driver.jobs.insert([Envelope(id=new_job_id(), tenant=f"tenant {number}") for number in range(count)])

    async def tenants():
        dialect = database.dialect

        async def read(connection):
            return await connection.exec_driver_sql(*dialect.select_claimable("default", dialect.due(), 100))

        return sorted(row.tenant for row in dialect.claimable.rows(await database.write_plain(read)))

    dispatched = await tenants()
    claims = await driver.jobs.claim(["default"], 100, 30)
    await driver.jobs.settle([Settlement.failed(claim.fence, Failure("E", "", "")) for claim in claims])
    assert await tenants() == []
    assert len(await driver.failed.retry([claim.fence.job_id for claim in claims])) == 41
    assert await tenants() == dispatched == sorted(["tenant 0"] + [f"tenant {number}" for number in range(40)])
    await driver.close()
    await database.close()


asyncio.run(main(sys.argv[1]))
"""


def test_a_new_column_is_added_in_one_place(database_url: str) -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT, database_url], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
