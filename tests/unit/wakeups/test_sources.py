"""Sources of wake-ups: what they say of themselves, outages, and one for several processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

from outbox.wakeups import reconnecting_source, supervisor_fanout
from outbox.wakeups.base import Report, Unavailable, WakeupListener, WakeupSource
from outbox.wakeups.reconnecting_source import ReconnectingSource
from outbox.wakeups.supervisor_fanout import FanoutClient, FanoutServer


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.notified: list[frozenset[str]] = []
        self.reports: list[str | None] = []
        self._changed = asyncio.Event()

    def notify(self, queues: Collection[str]) -> None:
        self.notified.append(frozenset(queues))
        self._changed.set()

    def notify_all(self) -> None:
        self.notify(())

    def report(self, text: str | None) -> None:
        self.reports.append(text)
        self._changed.set()

    async def until(self, count: int, *, reports: int = 0) -> None:
        async with asyncio.timeout(10):
            while len(self.notified) < count or len(self.reports) < reports:
                self._changed.clear()
                await self._changed.wait()


EVERYBODY: frozenset[str] = frozenset()


class Server(ReconnectingSource):
    """What the test puts into ``says``: queues, or an exception."""

    name = "server"

    def __init__(self, listener: WakeupListener, report: Report) -> None:
        super().__init__(listener, report)
        self.says: asyncio.Queue[frozenset[str] | BaseException | None] = asyncio.Queue()
        self.open = 0

    async def listen(self) -> AsyncIterator[frozenset[str] | None]:
        self.open += 1
        try:
            while True:
                word = await self.says.get()
                if isinstance(word, BaseException):
                    raise word
                yield word
        finally:
            self.open -= 1


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    monkeypatch.setattr(reconnecting_source, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(reconnecting_source, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(reconnecting_source, "START_SECONDS", 60)
    return Heard()


@pytest.fixture
async def server(heard: Heard) -> AsyncIterator[Server]:
    server = Server(heard, heard.report)
    yield server
    await server.stop()
    assert server.open == 0, "its connection is closed"


async def test_it_starts_when_it_hears_and_lets_everybody_look_once(server: Server, heard: Heard) -> None:
    server.says.put_nowait(None)
    assert await server.start() == "server"
    server.says.put_nowait(frozenset({"mail"}))
    await heard.until(2)
    assert heard.notified == [EVERYBODY, {"mail"}]
    assert heard.reports == []
    assert await server.start() == "server"
    assert server.open == 1


async def test_what_cannot_be_had_is_said_at_the_start_and_not_tried_again(server: Server) -> None:
    server.says.put_nowait(Unavailable("no binary log"))
    with pytest.raises(Unavailable, match="no binary log"):
        await server.start()
    await asyncio.sleep(0.05)
    assert server.open == 0


async def test_after_an_outage_everybody_looks_and_both_ends_of_it_are_told_once(server: Server, heard: Heard) -> None:
    server.says.put_nowait(None)
    await server.start()
    for error in (ConnectionResetError("gone"), ConnectionRefusedError("still gone"), Unavailable("not now")):
        server.says.put_nowait(error)
    server.says.put_nowait(None)
    await heard.until(2, reports=2)
    assert heard.reports == ["gone", None]
    assert heard.notified == [EVERYBODY, EVERYBODY]


async def test_a_server_that_is_away_is_waited_for_without_holding_up_the_worker(server: Server, heard: Heard) -> None:
    server.says.put_nowait(ConnectionRefusedError("nobody there"))
    assert await server.start() == "server, which does not answer yet (nobody there)"
    server.says.put_nowait(None)
    await heard.until(1, reports=1)
    assert heard.reports == [None]


async def test_a_server_that_says_nothing_holds_up_the_worker_for_a_moment_only(
    server: Server, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnecting_source, "START_SECONDS", 0.1)
    assert await server.start() == "server, which does not answer yet"
    server.says.put_nowait(None)
    await heard.until(1)


async def test_it_may_be_stopped_in_any_state(heard: Heard) -> None:
    server = Server(heard, heard.report)
    await server.stop()
    assert await server.start() == "server"
    await server.stop()
    assert server.open == 0


class Group:
    """A hub with one server behind each connection, and lines to it."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.refusal: str | None = None
        self.lines: list[FanoutClient] = []
        self.server = FanoutServer(self._open)

    def _open(self, connection: str, listener: WakeupListener, report: Report) -> WakeupSource:
        if self.refusal is not None:
            raise Unavailable(self.refusal)
        assert connection not in self.servers, "one stream, however many processes"
        server = self.servers[connection] = Server(listener, report)
        server.says.put_nowait(None)
        return server

    def line(self) -> FanoutClient:
        self.lines.append(FanoutClient(self.server.connect().detach()))
        return self.lines[-1]


@pytest.fixture
async def several(heard: Heard) -> AsyncIterator[Group]:
    several = Group()
    yield several
    for line in several.lines:
        line.close()
        line.close()
    await several.server.stop()


async def test_processes_under_a_supervisor_share_one_source(several: Group, heard: Heard) -> None:
    other = Heard()
    lines = [several.line(), several.line()]
    sources = [lines[0].source("database", heard, heard.report), lines[1].source("database", other, other.report)]
    assert [await source.start() for source in sources] == ["server", "server"]
    several.servers["database"].says.put_nowait(frozenset({"mail", "default"}))
    await heard.until(1)
    await other.until(1)
    assert heard.notified[-1] == other.notified[-1] == {"mail", "default"}
    await sources[0].stop()
    await sources[0].stop()
    several.servers["database"].says.put_nowait(frozenset({"mail"}))
    await other.until(len(other.notified) + 1)
    assert heard.notified[-1] == {"mail", "default"}
    await sources[1].stop()


async def test_a_process_follows_several_connections_over_one_line(several: Group, heard: Heard) -> None:
    other = Heard()
    line = several.line()
    first, second = line.source("a", heard, heard.report), line.source("b", other, other.report)
    await first.start()
    await second.start()
    several.servers["b"].says.put_nowait(frozenset({"mail"}))
    await other.until(1)
    assert frozenset({"mail"}) not in heard.notified
    await first.stop()
    several.servers["b"].says.put_nowait(frozenset({"more"}))
    await other.until(len(other.notified) + 1)
    await second.stop()


async def test_outages_are_told_to_every_process(several: Group, heard: Heard) -> None:
    source = several.line().source("database", heard, heard.report)
    await source.start()
    several.servers["database"].says.put_nowait(ConnectionResetError("gone"))
    several.servers["database"].says.put_nowait(None)
    await heard.until(1, reports=2)
    assert heard.reports == ["gone", None]
    assert heard.notified[-1] == EVERYBODY
    await source.stop()


async def test_a_refusal_reaches_the_process_and_is_asked_again_by_the_next(several: Group, heard: Heard) -> None:
    several.refusal = "no REPLICATION SLAVE: GRANT …"
    source = several.line().source("database", heard, heard.report)
    with pytest.raises(Unavailable, match="no REPLICATION SLAVE: GRANT …"):
        await source.start()
    await source.stop()
    several.refusal = None
    source = several.line().source("database", heard, heard.report)
    assert await source.start() == "server"
    await source.stop()


async def test_a_storm_is_told_in_a_few_messages(several: Group, heard: Heard) -> None:
    source = several.line().source("database", heard, heard.report)
    await source.start()
    for number in range(100):
        several.servers["database"].says.put_nowait(frozenset({f"queue{number}"}))
    for number in range(10_000):
        several.servers["database"].says.put_nowait(frozenset({f"more{number}"}))
    several.servers["database"].says.put_nowait(frozenset({"last"}))
    async with asyncio.timeout(10):
        while several.servers["database"].says.qsize():
            await asyncio.sleep(0)
    await heard.until(1)
    assert len(heard.notified) < 10
    assert heard.notified[-1] == EVERYBODY or "last" in heard.notified[-1]
    await source.stop()


async def test_a_process_that_died_or_is_frozen_holds_up_nobody(several: Group, heard: Heard) -> None:
    frozen = several.server.connect()
    frozen.send(b'{"follow": "database"}')
    died = several.server.connect()
    died.send(b'{"follow": "database"}')
    living = several.line().source("database", heard, heard.report)
    assert await living.start() == "server"
    died.close()
    for number in range(3_000):  # far more than its socket has room for
        several.servers["database"].says.put_nowait(frozenset({f"queue{number}"}))
        await heard.until(number + 1)
    assert heard.notified[-1] == {"queue2999"}
    frozen.close()
    await living.stop()


async def test_a_supervisor_that_does_not_answer_is_not_waited_for(
    several: Group, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_fanout, "RESPONSE_SECONDS", 0.05)
    line = several.line()
    await several.server.stop()
    source = line.source("database", heard, heard.report)
    assert await source.start() == "the supervisor, which does not answer yet"
    await source.stop()


async def test_the_line_is_found_in_the_environment_once(several: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = several.server.connect()
    descriptor = theirs.detach()
    monkeypatch.setenv(supervisor_fanout.DESCRIPTOR, str(descriptor))
    line: Any = FanoutClient.take()
    assert line is not None
    assert not os.get_inheritable(descriptor)
    assert FanoutClient.take() is None
    line.close()
