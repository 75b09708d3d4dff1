"""All job classes, one of them, and the form that dispatches a job of it."""

from __future__ import annotations

from starlette.responses import Response

from outbox.drivers.pauses import Pause, PauseKind
from outbox.registry import names_of
from outbox.web import charts
from outbox.web.job_forms import fields_of
from outbox.web.readings.classes import ClassRow, class_of, options_of
from outbox.web.trends import failure_rate
from outbox.web.view import View


def _is_of(pause: Pause, name: str) -> bool:
    return pause.kind is PauseKind.JOB and pause.name in names_of(name)


async def show_all(view: View) -> Response:
    answers = await view.readings.classes.all()
    return view.page(
        "classes.html",
        "Job classes",
        topics=("workers",),
        classes=answers.found,
        errors=answers.errors,
        several=len(view.readings.connections) > 1,
        failure_rate=failure_rate,
        sparkline=charts.sparkline,
    )


async def show_one(view: View) -> Response:
    connection, name = view.connection(), view.parameters.required("name")
    row: ClassRow = await view.readings.classes.get(connection, name)
    kind = class_of(view.readings.stores, name)
    return view.page(
        "class.html",
        f"Job class {name}",
        topics=("workers",),
        row=row,
        kind=kind,
        options=[] if kind is None else options_of(kind),
        charts=(*charts.throughput(row.trend), *charts.durations(row.trend)),
        connection=connection,
        fields=[] if kind is None else fields_of(kind, {}, {}),
        failure_rate=failure_rate(row.trend.last_hour),
        pauses=[each for each in await view.readings.pauses.of(connection) if _is_of(each, name)],
        now=await view.readings.now(connection),
    )
