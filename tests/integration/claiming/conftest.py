from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.servers.sql import connection as autocommit


@pytest.fixture
def fresh_pages(migrated_url: str, backend: str) -> None:
    """No entries of jobs that earlier tests have deleted, which a server removes at any time."""
    if backend == "sqlite":
        return
    with autocommit(migrated_url) as operator:
        operator.execute(text("TRUNCATE TABLE queue_jobs"))
