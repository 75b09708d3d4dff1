"""Have worker processes claim nothing, claim again, or stop."""

from __future__ import annotations

from starlette.responses import Response

from outbox.drivers.values import WorkerOrder
from outbox.errors import InvalidOption, JobNotFound
from outbox.web.view import View

_SAID = {
    WorkerOrder.QUIET: "The worker claims nothing from its next heartbeat on.",
    WorkerOrder.RESUME: "The worker claims again from its next heartbeat on.",
    WorkerOrder.STOP: "The worker stops at its next heartbeat. What supervises it starts another.",
}


async def quiet(view: View) -> Response:
    return await _order(view, WorkerOrder.QUIET)


async def resume(view: View) -> Response:
    return await _order(view, WorkerOrder.RESUME)


async def stop(view: View) -> Response:
    return await _order(view, WorkerOrder.STOP)


async def _order(view: View, order: WorkerOrder) -> Response:
    text = view.request.path_params["id"]
    try:
        worker_id = bytes.fromhex(text)
    except ValueError:
        raise InvalidOption(f"{text[:40]!r} is no id of a worker") from None
    if not await view.change(view.connection(), lambda driver: driver.workers.order(worker_id, order)):
        raise JobNotFound("there is no such worker any more: it has stopped")
    return view.done(_SAID[order], "/workers")
