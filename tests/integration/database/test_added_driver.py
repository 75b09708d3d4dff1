"""A driver that another package adds: an entry point, and nothing in outbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import outbox
from tests.servers import databases

SPEC = """
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.registry import DriverSpec

SPEC = DriverSpec("ledger_driver:open_driver", is_sql=True)
WRONG = "no spec"


class LedgerDriver(DatabaseDriver):
    pass


def open_driver(options):
    return LedgerDriver(options.url, name=options.name, pool_size=options.pool_size)
"""

PROGRAM = """
import asyncio
import outbox
from outbox.open_drivers import driver_here


class Note(outbox.Job):
    text: str

    async def handle(self) -> None: ...


async def main() -> None:
    await outbox.dispatch(Note(text="one"), connection="books")
    [job] = (await outbox.jobs(connection="books")).jobs
    print(type(driver_here("books")).__name__, job.name)


asyncio.run(main())
"""


@pytest.fixture
def installed(tmp_path: Path, migrated_sqlite: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the program where a package with the entry point ``ledger`` is installed."""

    def run(*, entry: str = "SPEC", driver: str = "ledger") -> subprocess.CompletedProcess[str]:
        url = databases.fresh_file(tmp_path, migrated_sqlite)
        (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
        (tmp_path / "ledger_driver.py").write_text(SPEC, encoding="utf-8")
        metadata = tmp_path / "ledger-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ledger\nVersion: 1.0\n", encoding="utf-8")
        entries = f"[outbox.drivers]\nledger = ledger_driver:{entry}\n"
        (metadata / "entry_points.txt").write_text(entries, encoding="utf-8")
        connections = json.dumps({"books": {"driver": driver, "url": url}})
        environment = {**os.environ, "PYTHONPATH": str(Path(outbox.__file__).parents[1])}
        return subprocess.run(
            [sys.executable, "program.py"],
            env=environment | {"OUTBOX_CONNECTIONS": connections},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.mark.sqlite
def test_a_connection_names_a_driver_of_another_package(
    installed: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = installed()
    assert done.stdout == "LedgerDriver program.Note\n", done.stderr


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"entry": "WRONG"}, "the entry point 'ledger' of outbox.drivers is not a DriverSpec: 'no spec'"),
        ({"driver": "odd"}, "the connection 'books' names the driver 'odd'; there are: database, ledger, redis"),
    ],
)
def test_what_is_no_driver_is_named(
    installed: Callable[..., subprocess.CompletedProcess[str]], given: dict[str, str], message: str
) -> None:
    assert f"ConfigurationError: {message}\n" in installed(**given).stderr
