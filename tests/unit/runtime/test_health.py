"""What probes are told: over HTTP, while handlers block the loop, and for all processes of a supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from outbox.errors import BackendUnavailable, ConfigurationError
from outbox.events import ConnectionUp, Events, WorkerStarted
from outbox.runtime.availability import CLAIM, HEARTBEAT, LOOK, Availability
from outbox.runtime.health.of_processes import HealthOfProcess, HealthOfProcesses
from outbox.runtime.health.server import HealthServer, Response, Routes, verdict
from outbox.runtime.health.worker_health import WorkerHealth
from outbox.runtime.process.exit_codes import Reason
from outbox.runtime.process.worker_process import HEALTH_DESCRIPTOR
from outbox.runtime.worker import Worker
from outbox.settings import WorkerOptions
from tests.support.http import get
from tests.unit.runtime.memory import MemoryDriver, Recorder, Store, until


@asynccontextmanager
async def working(store: Store, health: WorkerHealth) -> AsyncIterator[tuple[Worker, Recorder]]:
    recorder = Recorder()
    options = WorkerOptions(sleep=0.02)
    worker = Worker(options, [MemoryDriver(store)], recorder.events, name="w1", health=health)  # type: ignore[list-item]
    running = asyncio.create_task(worker.run())
    await recorder.wait(WorkerStarted)
    yield worker, recorder
    worker.stop.request(Reason.SIGNAL)
    await running


async def test_a_worker_is_ready_while_its_looks_go_well_and_until_it_stops() -> None:
    store, health = Store(), WorkerHealth()
    assert (list(health.not_live()), list(health.not_ready())) == ([], ["the worker is starting"])
    async with working(store, health) as (worker, recorder):
        await until(lambda: not health.not_ready())
        store.unreachable = True
        await until(lambda: list(health.not_ready()) == ["memory: the last look for jobs failed"])
        assert not health.not_live(), "a new process would reach it no better"
        store.unreachable = False
        await recorder.wait(ConnectionUp)
        await until(lambda: not health.not_ready())
        worker.stop.request(Reason.SIGNAL)
        assert list(health.not_ready()) == ["the worker stops: asked to stop"]


async def test_a_worker_whose_loop_is_blocked_is_not_alive_until_it_goes_on() -> None:
    health = WorkerHealth(stale_after=0.4)
    seen: list[str] = []

    def watch() -> None:
        end = time.monotonic() + 20
        # When the whole process has stood still, the stores have as well, for a moment.
        while len(seen) != 1 and time.monotonic() < end:
            seen[:] = health.not_live()
            time.sleep(0.01)

    async with working(Store(), health):
        watcher = threading.Thread(target=watch)
        watcher.start()
        watcher.join()  # on the loop: it is blocked
        assert [line.rpartition(" for ")[0] for line in seen] == ["the event loop has not run"]
        await until(lambda: not health.not_live())


async def test_a_worker_whose_stores_hang_their_thread_is_not_alive() -> None:
    health = WorkerHealth(stale_after=0.4)
    driver = MemoryDriver(Store())
    async with working(driver.store, health) as (worker, _):

        async def hang(_: object) -> None:
            while not health.not_live():
                time.sleep(0.01)

        await asyncio.wrap_future(worker.ask_stores(hang))
        await until(lambda: not health.not_live())


def test_the_last_claim_or_look_to_begin_counts() -> None:
    store, error = Availability("database", Events()), BackendUnavailable("gone")
    assert store.last_went_well(CLAIM, LOOK) is None
    store.succeeded(1.0, LOOK)
    assert store.last_went_well(CLAIM, LOOK) is True
    store.failed(2.0, error, HEARTBEAT)
    assert store.last_went_well(CLAIM, LOOK) is True
    store.failed(3.0, error, CLAIM)
    assert store.last_went_well(CLAIM, LOOK) is False
    store.succeeded(4.0, LOOK)
    store.failed(3.5, error, CLAIM)
    assert store.last_went_well(CLAIM, LOOK) is True, "a claim that hung for long is no news"


ROUTES: Routes = {"/live": lambda: verdict(()), "/ready": lambda: verdict(("no store", "no work"))}


@pytest.fixture
def url() -> Iterator[str]:
    server = HealthServer(ROUTES, "127.0.0.1", 0)
    yield server.start()
    server.stop()
    server.stop()


def test_it_answers_over_http(url: str) -> None:
    assert url.startswith("http://127.0.0.1:")
    assert get(f"{url}/live") == (200, "ok\n")
    assert get(f"{url}/live?verbose=1") == (200, "ok\n")
    assert get(f"{url}/ready") == (503, "no store\nno work\n")
    assert get(f"{url}/") == (404, "there are /live, /ready\n")
    assert get(f"{url}/live", method="HEAD") == (200, "")
    assert get(f"{url}/live", method="POST")[0] == 501


def test_a_client_that_says_nothing_keeps_no_other_waiting(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        assert get(f"{url}/live") == (200, "ok\n")


def test_a_port_that_is_taken_is_a_wrong_setting(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1 port {port}: .*another worker may use"):
        HealthServer(ROUTES, "127.0.0.1", port).start()
    with pytest.raises(ConfigurationError, match="cannot listen on no.such.host.invalid port 0"):
        HealthServer(ROUTES, "no.such.host.invalid", 0).start()


def test_it_listens_where_it_is_told() -> None:
    server = HealthServer(ROUTES, "::1", 0)
    try:
        url = server.start()
    except ConfigurationError:
        pytest.skip("this machine has no IPv6")
    assert url.startswith("http://[::1]:")
    assert get(f"{url}/live") == (200, "ok\n")
    server.stop()


class Pages:
    """Adds up pages by writing them one after the other."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def add_up(self, pages: list[str]) -> str:
        return "".join(sorted([*self.kept, *pages]))

    def keep(self, page: str) -> None:
        self.kept.append(page)


@pytest.fixture
def processes() -> Iterator[HealthOfProcesses]:
    yield from two_processes(answer_within=60)


def two_processes(answer_within: float) -> Iterator[HealthOfProcesses]:
    health = HealthOfProcesses(2, Pages(), answer_within=answer_within)  # type: ignore[arg-type]
    yield health
    for index in (1, 2):
        health.disconnect(index)


@pytest.fixture
def impatient() -> Iterator[HealthOfProcesses]:
    yield from two_processes(answer_within=0.3)


def connect(health: HealthOfProcesses, index: int, monkeypatch: pytest.MonkeyPatch) -> HealthOfProcess:
    """The process of this number, as a thread."""
    with health.connect(index) as theirs:
        monkeypatch.setenv(HEALTH_DESCRIPTOR, str(os.dup(theirs.fileno())))
    process = HealthOfProcess.take()
    assert process is not None
    assert HEALTH_DESCRIPTOR not in os.environ, "a process that a job starts does not speak for the worker"
    return process


def start(
    health: HealthOfProcesses, index: int, monkeypatch: pytest.MonkeyPatch, **routes: Response
) -> HealthOfProcess:
    process = connect(health, index, monkeypatch)
    process.start({f"/{name.replace('_', '/')}": partial(lambda answer: answer, each) for name, each in routes.items()})
    return process


WELL = verdict(())
STORE = Response(200, "store\n")


async def test_a_supervisor_answers_for_all_its_processes(
    processes: HealthOfProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = processes.routes()
    assert routes["/live"]().status == 200, "those that are starting are alive"
    assert routes["/ready"]() == verdict(("process 1: it is starting", "process 2: it is starting"))
    start(processes, 1, monkeypatch, live=WELL, ready=WELL)
    start(processes, 2, monkeypatch, live=verdict(("the event loop has not run for 11 s",)), ready=WELL)
    await until(lambda: routes["/ready"]().status == 200)
    assert routes["/live"]() == verdict(("process 2: the event loop has not run for 11 s",))
    processes.disconnect(2)
    assert routes["/live"]().status == 200, "it is about to be replaced"
    assert routes["/ready"]() == verdict(("process 2: it is starting",))


async def test_a_process_that_does_not_answer_is_not_alive(
    impatient: HealthOfProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = threading.Event()

    def freeze() -> Response:
        frozen.wait()
        return WELL

    connect(impatient, 1, monkeypatch).start({"/live": freeze})
    routes = impatient.routes()
    await until(lambda: routes["/live"]() == verdict(("process 1: it does not answer within 0.3 s",)))
    frozen.set()
    await until(lambda: routes["/live"]().status == 200)


async def test_metrics_of_a_process_that_ended_stay_in_the_sums(
    processes: HealthOfProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, page in ((1, "a\n"), (2, "b\n")):
        start(
            processes, index, monkeypatch, metrics_process=Response(200, page), metrics_store=Response(200, "store\n")
        )
    metrics = processes.routes()["/metrics"]
    await until(lambda: metrics().body == "a\nb\nstore\n")
    processes.disconnect(1)
    processes.disconnect(2)
    assert metrics().body == "a\nb\n"
    start(processes, 1, monkeypatch, metrics_process=Response(200, "c\n"), metrics_store=STORE)
    await until(lambda: metrics().body == "a\nb\nc\nstore\n")
    last = start(processes, 2, monkeypatch, metrics_process=Response(200, "d\n"))
    last.leave("e\n")
    processes.disconnect(2)
    assert metrics().body == "a\nb\nc\ne\nstore\n", "what it left behind when it stopped"


async def test_a_process_that_ends_while_a_sum_is_made_is_in_it_once(
    processes: HealthOfProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(processes, 1, monkeypatch, ready=WELL, metrics_process=Response(200, "a\n"))

    def end_the_first() -> Response:
        """What is read from the store is asked for last."""
        first.leave("a\n")
        processes.disconnect(1)
        return STORE

    second = connect(processes, 2, monkeypatch)
    second.start(
        {"/ready": lambda: WELL, "/metrics/process": lambda: Response(200, "b\n"), "/metrics/store": end_the_first}
    )
    routes = processes.routes()
    await until(lambda: routes["/ready"]().status == 200)
    assert routes["/metrics"]().body == "a\nb\nstore\n"
    assert routes["/metrics"]().body == "a\nb\nstore\n"


def test_without_the_package_metrics_say_what_is_missing() -> None:
    response = HealthOfProcesses(2).routes()["/metrics"]()
    assert (response.status, "pip install 'outbox-queue[prometheus]'" in response.body) == (404, True)
