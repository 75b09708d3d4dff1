"""A job that becomes due while jobs are counted is counted all the same."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import make_url

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.connection.plans import Plan
from outbox.drivers.database.metrics.rows import last_counts
from outbox.drivers.database.operations.failed_job_scope import FailedJobScope
from outbox.drivers.database.operations.queue_counts import bounded_counts
from tests.conformance.jobs import envelope

UNTIL_DUE = 1.0
"""Seconds."""


def answered_slowly(plan: Plan[Any], connection: sqlite3.Connection) -> Any:
    """What ``plan`` returns where the third row of the counts is made a while after the first: Python's module has made
    the second when it hands out the first."""
    try:
        statement = next(plan)
        while True:
            rows: list[Any] = []
            for row in connection.execute(*statement):
                if "UNION ALL" in statement[0] and not rows:
                    time.sleep(1.2 * UNTIL_DUE)
                rows.append(row)
            statement = plan.send(rows)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("backend", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
async def test_a_job_that_becomes_due_between_two_rows_is_counted(driver: DatabaseDriver, migrated_url: str) -> None:
    queues = ("a", "b", "c")
    await driver.jobs.insert([envelope(queue=queue)._replace(delay=UNTIL_DUE) for queue in queues])
    dialect = driver.database.dialect
    with closing(sqlite3.connect(str(make_url(migrated_url).database))) as connection:
        plan = bounded_counts(dialect, FailedJobScope(), last_counts(dialect, 2))
        found, _ = answered_slowly(plan, connection)
    assert all(sum(found[queue].states.values()) >= 1 for queue in queues)
