"""The overview: the numbers of all queues, and what needs attention."""

from __future__ import annotations

from starlette.responses import Response

from outbox.web.view import View


async def show(view: View) -> Response:
    overview = await view.readings.overview()
    return view.page(
        "overview.html", "Overview", topics=("overview",), overview=overview, several=len(view.readings.connections) > 1
    )
