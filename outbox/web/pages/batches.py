"""The latest batches, and one of them."""

from __future__ import annotations

from starlette.responses import Response

from outbox.web.parameters import parse_id
from outbox.web.view import View


async def show_all(view: View) -> Response:
    answers = await view.readings.batches.all(view.parameters.size)
    return view.page(
        "batches.html",
        "Batches",
        topics=("batches",),
        batches=answers.found,
        errors=answers.errors,
        now=await view.readings.now(view.readings.connections[0]) if answers.found else None,
    )


async def show_one(view: View) -> Response:
    connection = view.connection()
    batch, waiting, failed = await view.readings.batches.get(connection, parse_id(view.request.path_params["id"]))
    return view.page(
        "batch.html",
        f"Batch {batch.name or batch.id}",
        topics=("batches",),
        batch=batch,
        waiting=waiting,
        failed=failed,
        connection=connection,
        now=await view.readings.now(connection),
    )
