"""Worker processes that an operator asks to be quiet, to go on and to stop, on every store."""

from __future__ import annotations

import asyncio

from outbox import dispatch
from outbox.drivers.values import WorkerOrder, WorkerState
from outbox.events import WorkerPaused, WorkerResumed, WorkerStopped, WorkerStopping
from outbox.ids import new_token
from tests.integration.every_store.conftest import Store
from tests.support.embedded_worker import TIMEOUT, Arrival


async def test_a_worker_hears_of_orders_with_its_heartbeat(store: Store) -> None:
    async with store.worker(lease=1.5, queue=("default",)) as embedded:
        async with asyncio.timeout(TIMEOUT):
            while not (known := await store.driver.workers.all()):
                await asyncio.sleep(0.05)
        [worker] = known
        assert (worker.state, worker.ordered) == (WorkerState.WORKING, None)
        assert worker.version
        assert worker.memory is not None
        assert worker.memory > 1024**2
        assert await store.driver.workers.order(worker.id, WorkerOrder.QUIET)
        await embedded.event(WorkerPaused)
        arrival = Arrival()
        await dispatch(arrival.job)
        async with asyncio.timeout(TIMEOUT):
            while (await store.driver.workers.all())[0].state != WorkerState.QUIET:
                await asyncio.sleep(0.05)
        assert not arrival.done
        assert await store.driver.workers.order(worker.id, WorkerOrder.RESUME)
        await embedded.event(WorkerResumed)
        assert await arrival() == "default"
        assert await store.driver.workers.order(worker.id, WorkerOrder.STOP)
        stopping = await embedded.event(WorkerStopping)
        assert stopping.reason == "asked to stop"
        await embedded.event(WorkerStopped)
    assert await store.driver.workers.all() == []
    assert not await store.driver.workers.order(new_token(), WorkerOrder.STOP)
