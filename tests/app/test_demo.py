"""The demonstration as a person would run it, with less to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def demonstrate(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.demo", "--orders", "60", "--readings", "1500", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def rows(output: str) -> dict[str, str]:
    """The first two columns of the table."""
    cells = [[cell.strip() for cell in line.split("│")] for line in output.splitlines() if line.startswith("│")]
    return {name: value for _, name, value, *_ in cells if name}


def test_a_worker_is_killed_and_nothing_is_lost(database_url: str) -> None:
    shown = demonstrate(database_url)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    table = rows(shown.stdout)
    assert (table["orders"], table["receipts in the mailbox"]) == ("57", "57")
    assert (table["readings stored"], table["readings processed"]) == ("1,500", "1,500")
    assert (table["reports"], table["lost"], table["phantom"]) == ("12", "0", "0")
    assert "kill -9" in shown.stdout

    again = demonstrate(database_url)

    assert again.returncode == 1
    assert "already holds 57 orders and 1500 readings" in again.stdout.replace("\n", " ")


def test_a_database_that_does_not_answer_is_said_and_not_waited_for() -> None:
    shown = demonstrate("mysql+asyncmy://root@127.0.0.1:1/nowhere")

    assert shown.returncode == 1
    assert "alembic upgrade head failed" in shown.stdout
    assert "Can't connect" in shown.stdout
