"""What `outbox check` finds."""

from __future__ import annotations

from starlette.responses import Response

from outbox.web.view import View


async def show(view: View) -> Response:
    return view.page("health.html", "Health", findings=await view.readings.health())
