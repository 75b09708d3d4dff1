"""What a worker on SQLite sees of other processes."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from outbox.wakeups import sqlite_data_version as module
from outbox.wakeups.base import Wake
from outbox.wakeups.sqlite_data_version import DataVersion


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a b#?.db"


@pytest.fixture
def writer(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (x)")
    yield connection
    connection.close()


@pytest.fixture
def watched(file: Path) -> Iterator[DataVersion]:
    watched = DataVersion(file)
    yield watched
    watched.close()
    watched.close()


async def test_a_commit_of_somebody_else_ends_the_wait(watched: DataVersion, writer: sqlite3.Connection) -> None:
    watched.clear()
    waiting = asyncio.create_task(watched.wait(60))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    writer.execute("INSERT INTO t VALUES (1)")
    async with asyncio.timeout(10):
        assert await waiting is Wake.MAYBE


async def test_what_was_committed_between_the_look_and_the_wait_is_not_missed(
    watched: DataVersion, writer: sqlite3.Connection
) -> None:
    watched.clear()
    writer.execute("INSERT INTO t VALUES (1)")
    assert await watched.wait(60) is Wake.MAYBE


async def test_what_the_look_has_seen_wakes_nobody(watched: DataVersion, writer: sqlite3.Connection) -> None:
    writer.execute("INSERT INTO t VALUES (1)")
    watched.clear()
    assert await watched.wait(0.1) is Wake.NOTHING


async def test_what_was_rolled_back_or_is_not_committed_wakes_nobody(
    watched: DataVersion, writer: sqlite3.Connection
) -> None:
    watched.clear()
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO t VALUES (1)")
    assert await watched.wait(0.1) is Wake.NOTHING
    writer.execute("ROLLBACK")
    assert await watched.wait(0.1) is Wake.NOTHING


async def test_a_rollback_journal_does_as_well(watched: DataVersion, writer: sqlite3.Connection) -> None:
    writer.execute("PRAGMA journal_mode = DELETE")
    watched.clear()
    writer.execute("BEGIN EXCLUSIVE")  # nobody can even read
    writer.execute("INSERT INTO t VALUES (1)")
    assert await watched.wait(0.1) is Wake.NOTHING
    writer.execute("COMMIT")
    assert await watched.wait(60) is Wake.MAYBE


async def test_a_file_that_is_not_there_yet_is_not_made(watched: DataVersion, file: Path) -> None:
    watched.clear()
    assert await watched.wait(0.1) is Wake.NOTHING
    assert not file.exists()  # noqa: ASYNC240
    waiting = asyncio.create_task(watched.wait(60))
    await asyncio.sleep(0)
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    async with asyncio.timeout(10):
        assert await waiting is Wake.MAYBE


class Readings:
    """How often the version is read on connections that are opened from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        connect = sqlite3.connect

        def connect_and_trace(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(self._note)
            return connection

        monkeypatch.setattr(sqlite3, "connect", connect_and_trace)

    def _note(self, statement: str) -> None:
        self.count += statement == "PRAGMA data_version"

    async def more(self) -> None:
        """Wait for a few more: each is of a moment of its own."""
        enough = self.count + 3
        async with asyncio.timeout(10):
            while self.count < enough:
                await asyncio.sleep(0.001)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    return Readings(monkeypatch)


@pytest.mark.parametrize("kernel_tells", [True, False])
async def test_nothing_is_read_while_nobody_waits(
    readings: Readings,
    watched: DataVersion,
    writer: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    kernel_tells: bool,
) -> None:
    if not kernel_tells:
        monkeypatch.setattr(module.FileChanges, "of", lambda _: None)
    await watched.wait(0.05)
    read = readings.count
    assert read > 0
    writer.execute("INSERT INTO t VALUES (1)")
    await asyncio.sleep(0.1)
    assert (readings.count, watched.listening) == (read, False)


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"])
def test_a_database_in_memory_has_nobody_else_to_watch(url: str) -> None:
    assert DataVersion.of(make_url(url)) is None


needs_notifications = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


async def waiting_for_the_kernel(watched: DataVersion) -> asyncio.Task[Wake]:
    """What was written before is over: only the kernel's notification leads to another reading."""
    watched.clear()
    waiting = asyncio.create_task(watched.wait(60))
    async with asyncio.timeout(10):
        while not watched.listening:
            await asyncio.sleep(0.001)
    return waiting


@needs_notifications
async def test_nothing_is_read_while_the_kernel_tells_of_nothing(
    readings: Readings, watched: DataVersion, writer: sqlite3.Connection
) -> None:
    waiting = await waiting_for_the_kernel(watched)
    read = readings.count
    await asyncio.sleep(0.2)
    assert (readings.count, watched.listening) == (read, True)
    writer.execute("INSERT INTO t VALUES (1)")
    async with asyncio.timeout(10):
        assert await waiting is Wake.MAYBE
    assert readings.count > read


@needs_notifications
async def test_what_is_written_but_not_committed_yet_is_waited_for(
    watched: DataVersion, writer: sqlite3.Connection
) -> None:
    """The kernel tells of the writing; the commit can be seen only later."""
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("PRAGMA cache_spill = 1")
    waiting = await waiting_for_the_kernel(watched)
    writer.execute("BEGIN IMMEDIATE")
    for _ in range(2_000):
        writer.execute("INSERT INTO t VALUES (randomblob(400))")
    async with asyncio.timeout(10):
        while watched.listening:
            await asyncio.sleep(0.001)
    assert not waiting.done()
    writer.execute("COMMIT")
    async with asyncio.timeout(10):
        assert await waiting is Wake.MAYBE


async def test_where_the_kernel_does_not_tell_the_version_is_read_all_the_time(
    readings: Readings, watched: DataVersion, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.FileChanges, "of", lambda _: None)
    watched.clear()
    waiting = asyncio.create_task(watched.wait(60))
    await readings.more()
    assert not waiting.done()
    writer.execute("INSERT INTO t VALUES (1)")
    async with asyncio.timeout(10):
        assert await waiting is Wake.MAYBE


@needs_notifications
async def test_a_kernel_that_is_silent_about_commits_is_not_relied_on(
    readings: Readings, watched: DataVersion, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.FileChanges, "drain", lambda _: False)
    relying = await waiting_for_the_kernel(watched)
    relying.cancel()
    await asyncio.wait([relying])
    for number in range(10):
        writer.execute("INSERT INTO t VALUES (?)", (number,))
        watched.clear()
    waiting = asyncio.create_task(watched.wait(60))
    await readings.more()
    assert not waiting.done()
    assert not watched.listening
    writer.execute("INSERT INTO t VALUES (1)")
    async with asyncio.timeout(10):
        assert await waiting is Wake.MAYBE


@needs_notifications
async def test_commits_that_follow_closely_end_a_wait_fifty_times_a_second(
    watched: DataVersion, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK", 60)
    watched.clear()
    writer.execute("INSERT INTO t VALUES (1)")
    assert await watched.wait(60) is Wake.MAYBE
    writer.execute("INSERT INTO t VALUES (2)")
    assert await watched.wait(0.2) is Wake.NOTHING
