"""Pause, resume and clear a queue."""

from __future__ import annotations

from starlette.responses import Response

from outbox.console.formatting import counted
from outbox.drivers.pauses import PauseKind, PauseTarget, PauseTerms
from outbox.options import check_queue
from outbox.pausing import pause_on, resume_on
from outbox.web.rendering import segment, with_query
from outbox.web.view import View


def _queue(view: View) -> str:
    """
    Raises:
        InvalidOption: no queue can have this name. That of a relay is none that an operator changes.
    """
    return check_queue(view.request.path_params["queue"])


def _place(view: View, queue: str) -> str:
    return with_query(f"/queues/{segment(queue)}", {"connection": view.connection()})


async def pause(view: View) -> Response:
    queue = _queue(view)
    terms = PauseTerms(by=view.viewer.name[:255] or None)
    target = PauseTarget(PauseKind.QUEUE, queue)
    done = await view.change(view.connection(), lambda driver: pause_on(driver, target, terms))
    return view.done(f"{queue} is paused." if done else f"{queue} was paused already.", _place(view, queue))


async def resume(view: View) -> Response:
    queue = _queue(view)
    target = PauseTarget(PauseKind.QUEUE, queue)
    done = await view.change(view.connection(), lambda driver: resume_on(driver, target))
    return view.done(f"{queue} is resumed." if done else f"{queue} was not paused.", _place(view, queue))


async def clear(view: View) -> Response:
    queue = _queue(view)
    removed = await view.change(view.connection(), lambda driver: driver.queues.clear(queue))
    return view.done(f"Removed {counted(removed, 'job')} from {queue}.", _place(view, queue))
