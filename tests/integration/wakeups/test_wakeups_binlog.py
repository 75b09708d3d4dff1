"""The binary log of MySQL and MariaDB wakes workers; without it, and when it breaks, jobs run all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

import outbox
from outbox.drivers.bulk import BulkFilter, BulkRequest, Verb
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms
from outbox.events import BulkOperationEnded, WakeupsHeard, WakeupsUnheard
from tests.servers import LocalServer, MariaDB, MySQL, databases, sql
from tests.support.embedded_worker import OFTEN, TIMEOUT, Arrival, Ping, dumps, kill, put, working
from tests.support.recorded_jobs import Counted
from tests.support.worker_processes import Workers

pytestmark = pytest.mark.alone_on_its_server("one by one")

ON_SERVERS = [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]


@pytest.fixture(params=ON_SERVERS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def grant(url: str, privilege: str) -> None:
    with sql.connection(url) as connection:
        connection.execute(text(f"GRANT {privilege} ON *.* TO limited@'%'"))


async def test_a_commit_of_another_process_wakes_the_worker(migrated_url: str) -> None:
    async with working(migrated_url, queue=("default", "mail")) as worker:
        assert worker.woken_by == "binlog"
        for queue in ("default", "mail"):
            arrival = Arrival()
            await put(migrated_url, arrival.job, queue=queue)
            assert await arrival() == queue


async def test_a_bulk_operation_of_another_process_wakes_the_worker(migrated_url: str) -> None:
    async with working(migrated_url) as worker:
        assert worker.woken_by == "binlog"
        other = DatabaseDriver(migrated_url)
        made = await other.operations.start(BulkRequest(Verb.RETRY, BulkFilter()))
        await other.close()
        assert (await worker.event(BulkOperationEnded)).operation_id == made.id


@pytest.mark.parametrize("target", [PauseTarget(PauseKind.QUEUE, "default"), PauseTarget(PauseKind.JOB, Ping.name)])
async def test_the_end_of_a_pause_by_another_process_wakes_the_worker(migrated_url: str, target: PauseTarget) -> None:
    other = DatabaseDriver(migrated_url)
    await other.pauses.pause(target, PauseTerms())
    kept, behind = Arrival(), Arrival()
    async with working(migrated_url, queue=("default", "mail")) as worker:
        assert worker.woken_by == "binlog"
        await put(migrated_url, kept.job)
        await put(migrated_url, behind.job, queue="mail")
        if target.kind is PauseKind.QUEUE:
            await behind()
        else:
            async with asyncio.timeout(TIMEOUT):
                while sum(counts.parked for counts in await other.queues.counts()) < 2:
                    await asyncio.sleep(0.02)
        await worker.idle()
        assert not kept.done
        await other.pauses.resume(target, lambda _: None)
        await kept()
    await other.close()


async def test_jobs_of_other_queues_and_rows_of_other_tables_wake_nobody(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(migrated_url) as worker, working(migrated_url, queue=("after",)):
        await worker.idle()
        [consumer] = worker.worker.consumers
        asked: list[str] = []

        def noted(name: str, ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def note(*arguments: Any) -> Any:
                asked.append(name)
                return await ask(*arguments)

            return note

        for name in ("claim", "next_due"):
            monkeypatch.setattr(consumer.store, name, noted(name, getattr(consumer.store, name)))
        await put(migrated_url, Arrival().job, queue="elsewhere")
        with sql.connection(migrated_url) as connection:
            connection.execute(text("CREATE TABLE other (id INT PRIMARY KEY, queue VARCHAR(64))"))
            connection.execute(text("INSERT INTO other VALUES (1, 'default')"))
        # Whatever comes later in the log comes later here.
        last = Arrival()
        await put(migrated_url, last.job, queue="after")
        await last()
        assert asked == []
        assert consumer.wakeups.clear() == 0


async def test_a_statement_in_the_log_does_as_well_as_rows(migrated_url: str, backend: str) -> None:
    if backend == "mysql":
        pytest.skip("what an own connection sets is deprecated there, and a warning is an error here")
    async with working(migrated_url):
        arrival = Arrival()
        await put(migrated_url, arrival.job, queue="parked")
        with sql.connection(migrated_url) as connection:
            connection.execute(text("SET SESSION binlog_format = STATEMENT"))
            connection.execute(
                text(
                    "INSERT INTO queue_jobs (id, queue, name, priority, payload, headers, attempts, available_at, "
                    "created_at) SELECT UNHEX(MD5(1)), 'default', name, priority, payload, headers, attempts, "
                    "available_at, created_at FROM queue_jobs"
                )
            )
        assert await arrival() == "default"


async def test_a_killed_stream_costs_latency_and_comes_back(migrated_url: str) -> None:
    async with working(migrated_url, sleep=OFTEN) as worker:
        kill(migrated_url, dumps(migrated_url))
        lost = await worker.event(WakeupsUnheard)
        assert (lost.connection, lost.source) == ("database", "binlog")
        arrival = Arrival()
        await put(migrated_url, arrival.job)
        await arrival()
        await worker.event(WakeupsHeard)
    async with working(migrated_url) as worker:
        for count in (1, 2):
            kill(migrated_url, dumps(migrated_url))
            await worker.event(WakeupsHeard, count)
            arrival = Arrival()
            await put(migrated_url, arrival.job)
            await arrival()


async def test_what_was_committed_while_nobody_listened_is_found_when_the_stream_is_back(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from outbox.wakeups.binlog.stream import Stream

    opened = Stream.open
    may_open = asyncio.Event()

    async def open_later(url: object) -> Stream:
        await may_open.wait()
        return await opened(url)  # type: ignore[arg-type]

    async with working(migrated_url) as worker:
        monkeypatch.setattr(Stream, "open", open_later)
        kill(migrated_url, dumps(migrated_url))
        await worker.event(WakeupsUnheard)
        arrival = Arrival()
        await put(migrated_url, arrival.job)
        await asyncio.sleep(0.2)
        assert not arrival.done, "nobody told of it, and it looks once a minute"
        may_open.set()
        await arrival()


async def test_missing_privileges_are_named_with_the_statement_that_grants_them(
    limited_url: str, migrated_url: str
) -> None:
    statement = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'limited'@'%'"
    for missing in ("REPLICATION CLIENT", "REPLICATION SLAVE"):
        async with working(limited_url, sleep=OFTEN) as worker:
            assert worker.woken_by == f"polling: no {missing}: {statement}"
            arrival = Arrival()
            await put(migrated_url, arrival.job)
            await arrival()
        grant(migrated_url, missing)
    async with working(limited_url) as worker:
        assert worker.woken_by == "binlog"


async def test_processes_under_a_supervisor_share_one_stream(migrated_url: str, tmp_path: Path) -> None:
    workers = Workers(migrated_url, tmp_path)
    try:
        before = set(dumps(migrated_url))
        supervisor = await workers.start("--processes", "3", "--sleep", "60")
        started = await supervisor.event("worker_started", 3)
        assert [each["wakeups"] for each in started] == [["binlog"]] * 3
        stream = set(dumps(migrated_url)) - before
        assert len(stream) == 1
        await put(migrated_url, Counted(number=1))
        await workers.oracle.wait("end")
        kill(migrated_url, list(stream))
        await supervisor.event("wakeups_unheard", 3)
        await supervisor.event("wakeups_heard", 3)
        await put(migrated_url, Counted(number=2))
        await workers.oracle.wait("end", 2)
        assert await supervisor.terminate() == 0
    finally:
        await workers.close()


# --- servers of their own


@pytest.fixture
def server(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalServer]:
    """Not started: a test gives it options."""
    kind: type[LocalServer] = {"mysql": MySQL, "mariadb": MariaDB}[backend]
    server = kind(tmp_path / backend, template=request.getfixturevalue(f"prepared_{backend}"))
    yield server
    server.kill()


def migrated(server: LocalServer) -> str:
    with sql.connection(server.url) as connection:
        connection.execute(text("CREATE DATABASE shop"))
    url = make_url(server.url).set(database="shop").render_as_string(hide_password=False)
    databases.create_tables(url, outbox.metadata)
    return url


async def test_a_server_without_a_binary_log_is_polled(server: LocalServer) -> None:
    server.options = ("--skip-log-bin",)
    await asyncio.to_thread(server.start)
    url = await asyncio.to_thread(migrated, server)
    async with working(url, wake="binlog", sleep=OFTEN) as worker:
        assert worker.woken_by == "polling: the server writes no binary log: start it with --log-bin"
        arrival = Arrival()
        await put(url, arrival.job)
        await arrival()


async def test_a_database_that_is_left_out_of_the_log_is_polled(server: LocalServer) -> None:
    server.options = ("--binlog-ignore-db=shop",)
    await asyncio.to_thread(server.start)
    url = await asyncio.to_thread(migrated, server)
    async with working(url, sleep=OFTEN) as worker:
        assert worker.woken_by == (
            "polling: the server leaves shop out of its binary log: see binlog_do_db, binlog_ignore_db"
        )


@pytest.mark.parametrize("backend", ON_SERVERS[:1])
async def test_compressed_transactions_are_polled(server: LocalServer) -> None:
    server.options = ("--binlog-transaction-compression=ON",)
    await asyncio.to_thread(server.start)
    url = await asyncio.to_thread(migrated, server)
    async with working(url, sleep=OFTEN) as worker:
        assert worker.woken_by.startswith("polling: binlog_transaction_compression is ON")


@pytest.mark.parametrize(
    ("backend", "option"),
    [
        pytest.param("mysql", "--binlog-row-image=MINIMAL", marks=pytest.mark.mysql),
        pytest.param("mysql", "--binlog-checksum=NONE", marks=pytest.mark.mysql),
        pytest.param("mysql", "--binlog-row-metadata=FULL", marks=pytest.mark.mysql),
        pytest.param("mariadb", "--binlog-row-image=MINIMAL", marks=pytest.mark.mariadb),
        pytest.param("mariadb", "--log-bin-compress=ON", marks=pytest.mark.mariadb),
        pytest.param("mariadb", "--binlog-format=MIXED", marks=pytest.mark.mariadb),
    ],
)
async def test_however_the_server_writes_its_log(server: LocalServer, option: str) -> None:
    server.options = (option, "--log-bin-compress-min-len=10") if "compress" in option else (option,)
    await asyncio.to_thread(server.start)
    url = await asyncio.to_thread(migrated, server)
    async with working(url) as worker:
        assert worker.woken_by == "binlog"
        for _ in range(2):
            arrival = Arrival()
            await put(url, arrival.job)
            await arrival()


async def test_a_server_that_is_restarted_is_heard_again(server: LocalServer) -> None:
    await asyncio.to_thread(server.start)
    url = await asyncio.to_thread(migrated, server)
    async with working(url) as worker:
        server.kill()
        await worker.event(WakeupsUnheard)
        await asyncio.to_thread(server.start)
        await worker.event(WakeupsHeard)
        arrival = Arrival()
        await put(url, arrival.job)
        await arrival()
