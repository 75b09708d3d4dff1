"""What `outbox check` finds, how large the tables are, and the settings."""

from __future__ import annotations

from starlette.responses import Response

from outbox.web.view import View


async def show(view: View) -> Response:
    facts = await view.readings.facts.all()
    return view.page(
        "health.html",
        "Health",
        findings=await view.readings.health(),
        facts=facts.found,
        errors=facts.errors,
        settings=view.readings.facts.settings(),
    )
