"""What tests of encrypted jobs run in: a database, and a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import outbox.sync
from outbox.client_state import default_client
from outbox.relay.thread import RelayThreads
from tests.integration.encryption.encrypted_job_classes import KEY, ran


@pytest.fixture(autouse=True)
async def _environment(monkeypatch: pytest.MonkeyPatch, migrated_url: str) -> AsyncIterator[None]:
    monkeypatch.setenv("DATABASE_URL", migrated_url)
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEYS", KEY)
    ran.clear()
    yield
    await outbox.disconnect()
    await asyncio.to_thread(outbox.sync.disconnect)
    await default_client.part(RelayThreads).close()
