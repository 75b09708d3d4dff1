"""The dashboard as an ASGI application."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outbox.errors import ConfigurationError, OutboxError
from outbox.settings import Settings
from outbox.web.actions import action_routes
from outbox.web.assets import asset
from outbox.web.authentication import ApplicationAuth, Auth, Password, SignIn
from outbox.web.mounting import MountPoint
from outbox.web.pages import page_routes
from outbox.web.redaction import Hook, Redaction
from outbox.web.rights import READ_ONLY, Right
from outbox.web.routes import Guard, error_page
from outbox.web.security import SecurityHeaders, refused_host
from outbox.web.stores import WebStores
from outbox.web.traces import check_trace_url


def dashboard(
    auth: Auth | None = None,
    *,
    user: str | None = None,
    password: str | None = None,
    read_only: bool = False,
    allowed_hosts: Sequence[str] = ("*",),
    connections: Sequence[str] | None = None,
    redact: Hook | None = None,
    settings: Settings | None = None,
    time_limit: float = 5.0,
    trace_url: str | None = None,
) -> Starlette:
    """The dashboard, to be mounted: ``app.mount("/outbox", dashboard(auth=…))``. In Litestar, it is a route handler:
    ``asgi("/outbox", is_mount=True, copy_scope=True)(dashboard(auth=…))``.

    ``auth(request)``, sync or async, returns a `Viewer`, or None for a person who is not signed in. In its place,
    ``user`` and ``password`` are asked for by the browser. ``read_only`` takes every right away but those to look.
    ``allowed_hosts`` are the names of hosts that the dashboard answers for. ``connections`` are those that it shows;
    default: all of the settings. ``redact(name, payload)`` returns a payload as it may be shown. ``time_limit`` is the
    seconds that a page waits for one connection. ``trace_url`` is where the trace of a job is, with ``{trace_id}`` in
    the place of its id: ``"https://traces.example/{trace_id}"``.

    Raises:
        ConfigurationError: there is neither ``auth`` nor a user with a password, or there are both; or ``trace_url`` is
            no such address.
    """
    stores = WebStores(settings, connections, time_limit)
    return build(
        Guard(
            sign_in=_sign_in(auth, user, password),
            may=READ_ONLY if read_only else frozenset(Right),
            allowed_hosts=allowed_hosts,
            stores=stores,
            redaction=Redaction(redact),
            trace_url=check_trace_url(trace_url),
        )
    )


def _sign_in(auth: Auth | None, user: str | None, password: str | None) -> SignIn:
    if auth is not None:
        if user is not None or password is not None:
            raise ConfigurationError("give a dashboard `auth`, or a user and a password, not both")
        return ApplicationAuth(auth)
    if user is None or password is None:
        raise ConfigurationError(
            "a dashboard is closed by default: give it auth=… (a function that returns a Viewer or None), or user=… "
            "and password=…"
        )
    return Password(user, password)


def build(guard: Guard) -> Starlette:
    """The application behind ``guard``."""

    async def missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - the kind of error that it is registered for
        if refused_host(request.headers, guard.allowed_hosts) is not None:
            return error_page(request, None, 400, "An unknown host", "The dashboard does not answer for this host.")
        try:
            viewer = await guard.viewer(request)
        except OutboxError:
            viewer = None
        if error.status_code == 405:
            return error_page(request, viewer, 405, "Not allowed", "This address does not take such a request.")
        return error_page(request, viewer, 404, "Not found", "There is no such page. Go on from the overview.")

    return Starlette(
        routes=[Route("/static/{version}/{name}", asset, methods=["GET"]), *page_routes(guard), *action_routes(guard)],
        middleware=[Middleware(MountPoint), Middleware(SecurityHeaders)],
        exception_handlers={HTTPException: missing},
    )
