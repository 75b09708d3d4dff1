"""All schedules, and one of them."""

from __future__ import annotations

from starlette.responses import Response

from outbox.web.view import View


async def show_all(view: View) -> Response:
    answers = await view.readings.schedules.all()
    return view.page(
        "schedules.html", "Schedules", topics=("schedules",), schedules=answers.found, errors=answers.errors
    )


async def show_one(view: View) -> Response:
    schedule = await view.readings.schedules.get(view.connection(), view.parameters.required("name"))
    job = schedule.stored.definition.job
    return view.page(
        "schedule.html",
        f"Schedule {schedule.stored.name}",
        topics=("schedules",),
        schedule=schedule,
        job=job,
        payload="" if job is None else view.payload(job.name, job.payload),
    )
