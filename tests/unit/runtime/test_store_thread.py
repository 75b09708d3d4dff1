"""The thread in which a worker talks to its stores, and stays alive."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from outbox.drivers.values import WorkerStatus
from outbox.errors import BackendUnavailable
from outbox.runtime.availability import Availability
from outbox.runtime.heartbeat import Heartbeat
from outbox.runtime.service import BackgroundLoop
from outbox.runtime.store_thread import StoreThread
from tests.unit.runtime.memory import MemoryDriver, Recorder, Store, until

STATUS = WorkerStatus(b"w" * 16, "test", "host", 1, "default", 20, 0, 0, 0)


class Ticks(BackgroundLoop):
    def __init__(self) -> None:
        super().__init__()
        self.ticks = 0
        self.thread: threading.Thread | None = None

    async def run(self) -> None:
        self.thread = threading.current_thread()
        while not await self.pause(0.01):
            self.ticks += 1


def no_crash(error: BaseException) -> None:
    raise AssertionError from error


def thread(driver: MemoryDriver, *services: BackgroundLoop) -> StoreThread:
    return StoreThread([driver], lambda: services, no_crash)  # type: ignore[list-item]


async def test_it_lives_while_the_loop_of_the_worker_is_blocked() -> None:
    ticks, driver = Ticks(), MemoryDriver(Store())
    stores = thread(driver, ticks)
    await stores.start()
    before, end = ticks.ticks, time.monotonic() + 20
    while ticks.ticks <= before + 5:
        assert time.monotonic() < end
        time.sleep(0.01)  # a handler that blocks
    assert ticks.thread is not threading.main_thread()
    await stores.stop()
    assert driver.closed
    assert ticks.thread is not None
    ticks.thread.join(10)


async def test_a_transaction_goes_on_while_the_loop_of_the_worker_is_blocked() -> None:
    """Else it would keep its locks for as long as the handler blocks."""
    stores = thread(MemoryDriver(Store()))
    await stores.start()
    committed = threading.Event()

    async def transaction() -> str:
        for _ in range(5):
            await asyncio.sleep(0.01)  # statements
        committed.set()
        return "done"

    call = asyncio.create_task(stores.call(transaction))
    await asyncio.sleep(0)
    assert committed.wait(10), "with this loop blocked"
    assert await call == "done"
    await stores.stop()


async def test_what_a_call_raises_arrives() -> None:
    stores = thread(MemoryDriver(Store()))
    await stores.start()

    async def fails() -> None:
        raise BackendUnavailable("gone")

    with pytest.raises(BackendUnavailable, match="gone"):
        await stores.call(fails)
    await stores.stop()


async def test_it_is_safe_in_any_state() -> None:
    stores = thread(MemoryDriver(Store()))
    await stores.stop()
    await stores.stop()
    await stores.start()
    stores = thread(MemoryDriver(Store()))
    await stores.start()
    await stores.start()
    await stores.stop()
    await stores.stop()


async def test_a_start_that_fails_is_told_to_who_started_it() -> None:
    def build() -> list[BackgroundLoop]:
        raise ZeroDivisionError

    crashes: list[BaseException] = []
    stores = StoreThread([], build, crashes.append)
    with pytest.raises(ZeroDivisionError):
        await stores.start()
    await stores.stop()


async def test_a_service_that_crashes_in_the_thread_is_told_to_the_worker() -> None:
    class Crashes(BackgroundLoop):
        async def run(self) -> None:
            raise ZeroDivisionError

    crashes: list[BaseException] = []
    stores = StoreThread([], lambda: [Crashes()], crashes.append)
    await stores.start()
    await until(lambda: bool(crashes))
    assert isinstance(crashes[0], ZeroDivisionError)
    await stores.stop()


def heartbeat_service(driver: MemoryDriver, *, ready: bool = True, interval: float = 0.02) -> Heartbeat:
    return Heartbeat(
        driver,
        Availability("memory", Recorder().events),
        interval=interval,
        ready=lambda: ready,
        status=lambda: STATUS,
    )


async def test_a_heartbeat_is_written_and_removed() -> None:
    driver = MemoryDriver(Store())
    service = heartbeat_service(driver)
    await service.start()
    await until(lambda: driver.store.calls.count("beat") >= 3)
    assert driver.store.workers == {STATUS.id: STATUS}
    assert driver.store.calls.count("forget_workers") == 1
    await service.stop()
    assert driver.store.workers == {}


async def test_a_heartbeat_waits_until_the_store_was_found_in_order() -> None:
    driver = MemoryDriver(Store())
    service = heartbeat_service(driver, ready=False)
    await service.start()
    await service.pause(0.1)
    await service.stop()
    assert driver.store.calls == []


async def test_a_heartbeat_survives_every_answer_of_the_store() -> None:
    driver = MemoryDriver(Store())
    errors: list[Exception] = [BackendUnavailable("gone"), ZeroDivisionError()]
    heartbeat = driver.heartbeat

    async def failing(worker: WorkerStatus) -> None:
        if errors:
            raise errors.pop()
        await heartbeat(worker)

    driver.heartbeat = failing  # type: ignore[method-assign]
    service = heartbeat_service(driver)
    await service.start()
    await until(lambda: "beat" in driver.store.calls)
    await service.stop()


async def test_a_heartbeat_that_failed_is_soon_tried_again() -> None:
    """The outage is not over before."""
    driver = MemoryDriver(Store())
    driver.store.unreachable = True
    service = heartbeat_service(driver, interval=3_600)
    await service.start()
    await until(lambda: driver.store.calls.count("beat") >= 2)
    driver.store.unreachable = False
    await until(lambda: bool(driver.store.workers))
    await service.stop()
