"""Cancel a batch, and retry its failures."""

from __future__ import annotations

from starlette.responses import Response

from outbox.batching import cancel_on, no_batch, policies_of, retry_on
from outbox.console.formatting import counted
from outbox.drivers.base import Driver
from outbox.ids import JobId
from outbox.web.parameters import parse_id
from outbox.web.rendering import with_query
from outbox.web.view import View


async def _check(driver: Driver, batch_id: JobId) -> None:
    if await policies_of(driver).batch(batch_id) is None:
        raise no_batch(batch_id)


def _batch(view: View) -> tuple[JobId, str]:
    batch_id = parse_id(view.request.path_params["id"])
    return batch_id, with_query(f"/batches/{batch_id}", {"connection": view.connection()})


async def cancel(view: View) -> Response:
    batch_id, place = _batch(view)

    async def work(driver: Driver) -> bool:
        await _check(driver, batch_id)
        return await cancel_on(driver, batch_id)

    with view.readings.stores.as_client():
        done = await view.change(view.connection(), work)
    return view.done("The batch is cancelled." if done else "The batch has ended, or was cancelled already.", place)


async def retry(view: View) -> Response:
    batch_id, place = _batch(view)

    async def work(driver: Driver) -> int:
        await _check(driver, batch_id)
        return await retry_on(driver, batch_id)

    with view.readings.stores.as_client():
        retried = await view.change(view.connection(), work)
    return view.done(f"Retried {counted(retried, 'failed job')}.", place)
