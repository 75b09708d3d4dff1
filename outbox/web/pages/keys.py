"""Keys that a failed job blocks, keys that are paused, and what is left of each limit."""

from __future__ import annotations

from starlette.responses import Response

from outbox.web.redaction import HIDDEN
from outbox.web.view import View


async def show_all(view: View) -> Response:
    blocked, limits = await view.readings.keys.blocked(), await view.readings.keys.limits()
    paused = await view.readings.pauses.of_keys()
    return view.page(
        "keys.html",
        "Keys and limits",
        topics=("keys",),
        blocked=blocked.found,
        limits=limits.found,
        paused=paused,
        now=await view.readings.now(paused[0][0]) if paused else None,
        connection=view.readings.connections[0],
        connections=view.readings.connections,
        errors=blocked.errors | limits.errors,
        key=lambda text: text if view.sees_payloads else HIDDEN,
    )
