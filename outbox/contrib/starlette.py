"""Dispatches after the response is sent, for applications of Starlette and FastAPI."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, Unpack

from outbox.dispatch import Serialized, serialize_all, store_all, with_options
from outbox.job import Job
from outbox.options import DispatchOptions

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_FIRST_REFUSAL = 400

_log = logging.getLogger("outbox.contrib.starlette")

_waiting: ContextVar[list[Serialized] | None] = ContextVar("outbox_after_response", default=None)
"""What the request that runs dispatches later."""


@with_options
def after_response(job: Job, **options: Unpack[DispatchOptions]) -> None:
    """Dispatch ``job`` when the response of this request has been sent, without a session. In ``async def`` and plain
    ``def`` endpoints, and in their dependencies, of an application with `AfterResponse`.

    The job is checked and serialised now. It is not dispatched if the request raises, or answers with a status of 400
    or more. It is lost if the process dies before it is stored, or if the store does not answer, which is logged: a job
    that must exist is dispatched in the session of its data. Options are those of `outbox.dispatch`.

    Raises:
        RuntimeError: no request with the middleware is running.
        InvalidJob, InvalidOption, PayloadTooLarge, ConfigurationError: as `outbox.dispatch`.
    """
    waiting = _waiting.get()
    if waiting is None:
        raise RuntimeError("after_response is for requests of an application with the middleware AfterResponse")
    serialized = serialize_all((job,), options, takes_keys=True)
    if serialized.by_connection:
        waiting.append(serialized)


class AfterResponse:
    """Middleware for `after_response`: ``app.add_middleware(AfterResponse)``. It works in any ASGI application.

    Jobs are dispatched in the order of their calls, once the last part of the response has been handed to the server.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        waiting: list[Serialized] = []
        status = _FIRST_REFUSAL

        async def send_and_dispatch(message: Message) -> None:
            nonlocal status
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                await _dispatch(waiting, status)

        token = _waiting.set(waiting)
        try:
            await self._app(scope, receive, send_and_dispatch)
            # What background tasks of the response have added.
            await _dispatch(waiting, status)
        finally:
            _waiting.reset(token)


async def _dispatch(waiting: list[Serialized], status: int) -> None:
    """The response is sent: only the log can be told of an error."""
    accepted = waiting.copy() if status < _FIRST_REFUSAL else []
    waiting.clear()
    for serialized in accepted:
        try:
            await store_all(serialized)
        except Exception:  # noqa: BLE001 - it must not end the connection, nor keep the other jobs from being stored
            names = sorted({each.name for some in serialized.by_connection.values() for each in some})
            _log.exception("%s was not dispatched after the response", ", ".join(names))
