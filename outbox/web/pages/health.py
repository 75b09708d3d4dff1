"""What `outbox check` finds, how large the tables are, and the settings."""

from __future__ import annotations

from starlette.responses import Response

from outbox.web.view import View


async def show(view: View) -> Response:
    return view.page(
        "health.html",
        "Health",
        findings=await view.readings.health(),
        facts=await view.readings.facts.all(),
        settings=view.readings.facts.settings(),
    )
