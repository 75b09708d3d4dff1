"""The worker processes, and what they run."""

from __future__ import annotations

from starlette.responses import Response

from outbox.console.formatting import ORDERED
from outbox.web.view import View


async def show_all(view: View) -> Response:
    answers = await view.readings.workers.all()
    return view.page(
        "workers.html",
        "Workers",
        topics=("workers",),
        workers=answers.found,
        errors=answers.errors,
        ordered=ORDERED,
        now=await view.readings.now(view.readings.connections[0]) if answers.found else None,
        several=len(view.readings.connections) > 1,
    )
