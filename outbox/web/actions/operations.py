"""Begin and stop bulk operations."""

from __future__ import annotations

from functools import partial

from starlette.responses import Response

from outbox.bulk import no_operation, operations_of
from outbox.client_state import current_client
from outbox.console.formatting import counted
from outbox.drivers.bulk import Verb
from outbox.wakeups.announce import announce_operation
from outbox.web.pages.operations import request_of
from outbox.web.parameters import parse_id
from outbox.web.rendering import with_query
from outbox.web.routes import Show
from outbox.web.view import View


async def _start(verb: Verb, view: View) -> Response:
    request, connection, by = request_of(view, verb), view.connection(), view.viewer.name
    made = await view.change(connection, lambda driver: operations_of(driver).start(request, by))
    with view.readings.stores.as_client():
        announce_operation(current_client(), connection)
    which = "all that match" if made.total is None else counted(made.total, "job")
    return view.done(f"Workers {verb} {which}.", with_query("/operations", {"connection": connection}))


def starting(verb: Verb) -> Show:
    return partial(_start, verb)


async def stop(view: View) -> Response:
    operation_id, connection, by = parse_id(view.request.path_params["id"]), view.connection(), view.viewer.name
    stopped = await view.change(connection, lambda driver: operations_of(driver).stop(operation_id, by))
    if stopped is None:
        if await view.change(connection, lambda driver: operations_of(driver).get(operation_id)) is None:
            raise no_operation(operation_id)
        message = "It had ended already."
    else:
        message = f"Stopped after {counted(stopped.done, 'job')}."
    return view.done(message, with_query("/operations", {"connection": connection}))
