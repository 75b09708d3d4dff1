"""The example application on an empty database, and a mailbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import outbox
from app import db
from app.demo.mailbox import Mailbox, serve
from app.models import metadata
from app.settings import settings
from tests.servers import databases


@pytest.fixture
async def shop(migrated_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[str]:
    """The application's settings and tables, and outbox's; yields the database's URL."""
    databases.create_tables(migrated_url, metadata)
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("APP_REPORTS_DIR", str(tmp_path / "reports"))
    settings.cache_clear()
    yield migrated_url
    await db.dispose()
    await outbox.disconnect()
    settings.cache_clear()


@pytest.fixture
async def mailbox(shop: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mailbox]:
    """A real SMTP server, to which the application's mail goes."""
    box = Mailbox()
    async with serve(box) as port:
        monkeypatch.setenv("APP_SMTP_PORT", str(port))
        settings.cache_clear()
        yield box
