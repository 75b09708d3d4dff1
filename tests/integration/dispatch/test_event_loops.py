"""Event loops that come and go take their connections with them."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import anyio
import pytest
import uvloop
from sqlalchemy import make_url, text

import outbox.sync
from outbox import Job, configure, disconnect, dispatch
from outbox.client_state import default_client
from outbox.instruments import Dispatched, Run
from outbox.open_drivers import OpenDrivers
from outbox.sync.loops import MOST_LOOPS, SyncLoops
from tests.servers import sql
from tests.servers.databases import connections_of

ROUNDS = 12


class Note(Job):
    number: int

    def handle(self) -> None: ...


def one() -> asyncio.Future[object] | object:
    return dispatch(Note(number=1))


def run() -> None:
    asyncio.run(one())  # type: ignore[arg-type]


def run_in_runner() -> None:
    with asyncio.Runner() as runner:
        runner.run(one())  # type: ignore[arg-type]


def run_on_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(one())  # type: ignore[arg-type]


def run_on_anyio() -> None:
    anyio.run(dispatch, Note(number=1))


def run_in_threads() -> None:
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_and_only_close() -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(one())  # type: ignore[arg-type]
    loop.close()


def run_and_disconnect() -> None:
    async def main() -> None:
        await dispatch(Note(number=1))
        await disconnect()

    asyncio.run(main())


WAYS = [
    run,
    run_in_runner,
    run_on_uvloop,
    run_on_anyio,
    run_in_threads,
    run_and_only_close,
    run_and_disconnect,
]


@pytest.fixture(params=["database", pytest.param("redis", marks=pytest.mark.redis)])
def dispatching(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "redis":
        configure(redis_url=request.getfixturevalue("redis_url"), connection="redis")
    else:
        configure(database_url=request.getfixturevalue("migrated_url"))
    yield
    default_client.part(OpenDrivers).drop_closed()
    configure()


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    return "sqlite"


def held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def settled(way: Callable[[], None]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Before and after many rounds. A thread that has been told to end takes a moment for it."""
    way()
    before = held()
    for _ in range(ROUNDS):
        way()
    changed = threading.Event()
    for _ in range(400):
        descriptors, threads = after = held()
        if descriptors <= before[0] + 2 and threads <= before[1]:
            break
        changed.wait(0.05)
    return before, after


@pytest.mark.parametrize("way", WAYS)
def test_loops_that_come_and_go_leave_neither_descriptors_nor_threads(
    dispatching: None, way: Callable[[], None]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before, after = settled(way)
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1]


def test_a_loop_on_uvloop_that_is_only_closed_leaves_nothing_but_a_warning(dispatching: None) -> None:
    def way() -> None:
        loop = uvloop.new_event_loop()
        loop.run_until_complete(one())  # type: ignore[arg-type]
        loop.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # uvloop closes what is left itself, and says so
        before, after = settled(way)
        default_client.part(OpenDrivers).drop_closed()
        gc.collect()
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1]


class TestOnServers:
    @pytest.fixture(
        params=[
            pytest.param("mysql", marks=pytest.mark.mysql),
            pytest.param("mariadb", marks=pytest.mark.mariadb),
        ]
    )
    def backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(autouse=True)
    def configured(self, migrated_url: str) -> Iterator[None]:
        configure(database_url=migrated_url)
        yield
        default_client.part(OpenDrivers).drop_closed()
        configure()

    @staticmethod
    def connections(url: str) -> int:
        with sql.connection(url) as connection:
            found = connection.scalars(text(connections_of(connection)), {"name": make_url(url).database})
            return len(found.all()) - 1  # all but this one

    @pytest.mark.parametrize("way", WAYS)
    def test_the_server_sees_their_connections_end(self, migrated_url: str, way: Callable[[], None]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            before, after = settled(way)
        assert after[0] <= before[0] + 2
        default_client.part(OpenDrivers).drop_closed()
        wait_until(lambda: self.connections(migrated_url) == 0)

    def test_a_sync_dispatch_keeps_its_connection_and_gives_it_back(self, migrated_url: str) -> None:
        for number in range(5):
            outbox.sync.dispatch(Note(number=number))
        assert self.connections(migrated_url) == 1
        outbox.sync.disconnect()
        wait_until(lambda: self.connections(migrated_url) == 0)


def wait_until(condition: Callable[[], bool]) -> None:
    changed = threading.Event()
    for _ in range(1_200):
        if condition():
            return
        changed.wait(0.05)
    pytest.fail("it did not come to be")


def test_a_sync_dispatch_in_a_running_loop_is_stored(migrated_url: str) -> None:
    configure(database_url=migrated_url)

    async def main() -> object:
        return outbox.sync.dispatch(Note(number=1))

    try:
        assert asyncio.run(main()) is not None
        assert outbox.sync.dispatch(Note(number=2)) is not None
    finally:
        outbox.sync.disconnect()
        configure()


class Interrupts:
    """An instrument: a signal arrives while a job is written, as that of Ctrl+C does."""

    @contextmanager
    def dispatching(self, jobs: Dispatched) -> Iterator[Mapping[str, str]]:
        yield {}
        raise KeyboardInterrupt

    def running(self, run: Run) -> AbstractContextManager[None]:
        return nullcontext()


def test_a_sync_dispatch_that_is_interrupted_leaves_nothing_behind(
    migrated_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(database_url=migrated_url)
    try:
        outbox.sync.dispatch(Note(number=1))
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(default_client, "instruments", (Interrupts(),))
            outbox.sync.dispatch(Note(number=2))
        assert outbox.sync.dispatch(Note(number=3)) is not None
        gc.collect()
        assert caplog.messages == []
    finally:
        outbox.sync.disconnect()
        configure()


def test_more_threads_than_loops_all_dispatch(migrated_url: str) -> None:
    configure(database_url=migrated_url)
    ids: list[object] = []
    together = threading.Barrier(20)

    def some() -> None:
        together.wait()
        ids.extend([outbox.sync.dispatch(Note(number=number)) for number in range(5)])

    threads = [threading.Thread(target=some) for _ in range(20)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(ids)) == 100
        assert 0 < default_client.part(SyncLoops).idle <= MOST_LOOPS
    finally:
        outbox.sync.disconnect()
        configure()
