"""`alembic upgrade head` is killed with SIGKILL, and run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from outbox import migrations
from tests.integration.migrations.test_migrations import alembic
from tests.integration.migrations.test_online import waits
from tests.servers import sql
from tests.support.python_process import run_python
from tests.support.table_versions import add_job

ROOT = Path(__file__).parents[3]


def start(url: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env=environment)


@pytest.mark.parametrize("changes", [1, 2, 5, 8])
def test_between_two_changes(database_url: str, changes: int) -> None:
    environment = {**os.environ, "DATABASE_URL": database_url}
    dying = run_python("-m", "tests.support.dying_migration", str(changes), cwd=ROOT, env=environment, check=False)
    assert dying.returncode == -signal.SIGKILL, dying.stderr
    alembic(database_url, "upgrade", "head")
    with sql.connection(database_url) as connection:
        assert migrations.version_of(connection) == migrations.LATEST
    checked = alembic(database_url, "check", check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_while_it_waits_for_a_transaction(database_url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("SQLite's own wait ends with the process")
    alembic(database_url, "upgrade", "0002")
    add_job(database_url)
    with sql.connection(database_url) as holding, sql.connection(database_url) as looking:
        holding.execute(text("START TRANSACTION"))
        holding.execute(text("SELECT COUNT(*) FROM queue_jobs"))
        killed = start(database_url, "alembic", "upgrade", "head")
        until_waiting(looking)
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        again = start(database_url, "alembic", "upgrade", "head")
        until_waiting(looking)
        holding.execute(text("COMMIT"))
        assert again.wait(120) == 0
        assert migrations.version_of(looking) == migrations.LATEST
        assert looking.scalar(text("SELECT COUNT(*) FROM queue_jobs")) == 1


def until_waiting(connection: object) -> None:
    deadline = time.monotonic() + 120
    while not waits(connection):
        assert time.monotonic() < deadline
        time.sleep(0.01)
