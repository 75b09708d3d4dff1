"""The demonstration as a person would run it, with less to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.demo.workers import PROCESSES
from tests.servers import Redis, databases, sql, summary

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]


def demonstrate(url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.demo", "--orders", "60", "--readings", "1500", "--timeout", "400", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def rows(output: str) -> dict[str, str]:
    """The first two columns of the table."""
    cells = [[cell.strip() for cell in line.split("│")] for line in output.splitlines() if line.startswith("│")]
    return {name: value for _, name, value, *_ in cells if name}


def test_a_worker_is_killed_and_nothing_is_lost(database_url: str, backend: str) -> None:
    web = backend == "sqlite"
    shown = demonstrate(database_url, *(["--web"] if web else []))

    assert shown.returncode == 0, shown.stdout + shown.stderr
    table = rows(shown.stdout)
    assert (table["orders"], table["receipts in the mailbox"]) == ("57", "57")
    assert (table["readings stored"], table["readings processed"]) == ("1,500", "1,500")
    assert (table["reports"], table["lost"], table["phantom"]) == ("12", "0", "0")
    assert table["out of order"] == "0"
    assert "kill -9" in shown.stdout
    assert ("dashboard: http://127.0.0.1:" in shown.stdout) == web

    if backend != "sqlite":
        return  # what there is already is counted with the same query everywhere
    again = demonstrate(database_url)

    assert again.returncode == 1
    assert "already holds 57 orders and 1500 readings" in again.stdout.replace("\n", " ")


@pytest.mark.redis
@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
def test_the_same_on_a_redis_that_it_starts(database_url: str) -> None:
    with summary.skipping():
        Redis.find_program()

    shown = demonstrate(database_url, QUEUE_CONNECTION="redis")

    assert shown.returncode == 0, shown.stdout + shown.stderr
    table = rows(shown.stdout)
    assert (table["connection"], table["receipts in the mailbox"]) == ("redis", "57")
    assert (table["readings processed"], table["reports"]) == ("1,500", "12")
    assert (table["lost"], table["phantom"], table["out of order"]) == ("0", "0", "0")
    assert "kill -9" in shown.stdout
    with sql.connection(database_url) as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM queue_jobs").scalar_one() == 0


def test_without_a_redis_it_says_what_to_install(tmp_path: Path) -> None:
    url = databases.fresh_file(tmp_path)

    shown = demonstrate(url, QUEUE_CONNECTION="redis", PATH=str(tmp_path))

    assert shown.returncode == 1
    assert "install Redis 7 or later (redis-server)" in shown.stdout.replace("\n", " ")


def test_a_database_that_does_not_answer_is_said_and_not_waited_for() -> None:
    shown = demonstrate("mysql+asyncmy://root@127.0.0.1:1/nowhere")

    assert shown.returncode == 1
    assert "alembic upgrade head failed" in shown.stdout
    assert "Can't connect" in shown.stdout


def test_its_workers_end_with_it(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "app.demo", "--dir", str(tmp_path)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with demo, ending_with(demo):
        workers = wait_for_workers(demo)
        demo.send_signal(signal.SIGTERM)
        shown, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "interrupted" in shown
    deadline = time.monotonic() + 10
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def ending_with(demo: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        demo.send_signal(signal.SIGINT)  # does nothing to a process that has ended


def wait_for_workers(demo: subprocess.Popen[str]) -> list[int]:
    """The supervisor and its processes."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        supervisors = [pid for pid in children(demo.pid) if "outbox.work" in Path(f"/proc/{pid}/cmdline").read_text()]
        workers = [pid for supervisor in supervisors for pid in children(supervisor)]
        if len(workers) >= PROCESSES:
            return supervisors + workers
        time.sleep(0.05)
    pytest.fail("it has started no workers")


def is_running(pid: int) -> bool:
    """One that was killed can stay as a zombie: its parent is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
