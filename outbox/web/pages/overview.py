"""The overview: the numbers of all queues, and what needs attention."""

from __future__ import annotations

from starlette.responses import Response

from outbox.web import charts
from outbox.web.pages.queues import sparklines
from outbox.web.trends import together
from outbox.web.view import View


async def show(view: View) -> Response:
    overview = await view.readings.overview.read()
    trends = (await view.readings.trends.all()).found
    whole = together(list(trends.values()))
    return view.page(
        "overview.html",
        "Overview",
        topics=("overview",),
        overview=overview,
        several=len(view.readings.connections) > 1,
        charts=() if whole is None else charts.throughput(whole),
        sparkline=sparklines(trends),
    )
