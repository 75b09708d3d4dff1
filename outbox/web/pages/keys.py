"""Keys that a failed job blocks, keys that are paused, and what is left of each limit."""

from __future__ import annotations

from starlette.responses import Response

from outbox.drivers.filters import BLOCKED_EXAMINED
from outbox.web.readings.keys import LIMITS_SHOWN
from outbox.web.redaction import HIDDEN
from outbox.web.view import View

PARAMETERS = ("connection", "before")


async def show_all(view: View) -> Response:
    limits = await view.readings.keys.limits()
    errors = limits.errors
    before = view.parameters.job_id("before")
    if before is not None:
        blocked = await view.readings.keys.blocked_before(view.connection(), before)
    else:
        answers = await view.readings.keys.blocked()
        blocked, errors = answers.found, errors | answers.errors
    paused = await view.readings.pauses.of_keys()
    return view.page(
        "keys.html",
        "Keys and limits",
        topics=("keys",),
        blocked=blocked,
        examined=BLOCKED_EXAMINED,
        given=view.parameters.given(),
        limits=limits.found,
        limits_shown=LIMITS_SHOWN,
        paused=paused,
        now=await view.readings.now(paused[0][0]) if paused else None,
        connection=view.readings.connections[0],
        connections=view.readings.connections,
        errors=errors,
        key=lambda text: text if view.sees_payloads else HIDDEN,
    )
