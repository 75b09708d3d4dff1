"""A route of the dashboard: where it is, which right it demands, and what it may be asked."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outbox.drivers.audit import acting
from outbox.errors import (
    BackendUnavailable,
    ConfigurationError,
    DispatchError,
    JobError,
    JobNotFound,
    JobNotWaiting,
    OutboxError,
    RepeatedAction,
)
from outbox.web.authentication import SignIn
from outbox.web.live import Live
from outbox.web.parameters import LONGEST_VALUE, Parameters
from outbox.web.readings import Readings
from outbox.web.redaction import Redaction
from outbox.web.rights import Right, Viewer
from outbox.web.security import SAFE_METHODS, is_same_origin, read_body, refused_host, too_large
from outbox.web.sent_forms import SentForms
from outbox.web.stores import WebStores
from outbox.web.view import View, render

_log = logging.getLogger("outbox.web")

_NOT_RECORDED = {"connection", "payload"}
_COMMANDS = {"queues": "", "jobs": "", "classes": "", "failures": "", "schedules": "schedule", "operations": "bulk"}
"""Words of paths that commands call otherwise, or leave out."""

Show = Callable[[View], Awaitable[Response]]

_STATUS: tuple[tuple[type[OutboxError], int, str], ...] = (
    (JobNotFound, 404, "Not found"),
    (JobNotWaiting, 409, "The job does not wait"),
    (RepeatedAction, 409, "Done already"),
    (BackendUnavailable, 503, "A store does not answer"),
    (ConfigurationError, 503, "Something is not set up"),
    (DispatchError, 400, "This cannot be done"),
    (JobError, 400, "This cannot be done"),
)


class Guard:
    """What stands before every page."""

    def __init__(
        self,
        sign_in: SignIn,
        may: frozenset[Right],
        allowed_hosts: Sequence[str],
        stores: WebStores,
        redaction: Redaction,
        trace_url: str | None = None,
    ) -> None:
        """No viewer has more rights than ``may``."""
        self.sign_in = sign_in
        self.allowed_hosts = tuple(host.lower() for host in allowed_hosts)
        self.redaction = redaction
        self.sent_forms = SentForms()
        self._trace_url = trace_url
        self._may = may
        self._readings = Readings(stores)
        self._live = Live(stores)

    def view(self, request: Request, viewer: Viewer, parameters: Parameters) -> View:
        """A page that was told of a change reads what others read as well."""
        told = request.method in SAFE_METHODS and "hx-request" in request.headers
        readings = self._live.readings if told and self._live.is_polling else self._readings
        return View(request, viewer, readings, self.redaction, parameters, self._live, self._trace_url)

    async def viewer(self, request: Request) -> Viewer | None:
        found = await self.sign_in.viewer(request)
        return None if found is None else found.limited_to(self._may)


class DashboardRoute(Route):
    """A route with the right that it demands. Other methods than GET and HEAD are refused from another origin."""

    def __init__(
        self,
        guard: Guard,
        path: str,
        show: Show,
        *,
        right: Right,
        parameters: Collection[str] = (),
        fields: Collection[str] | None = None,
        longest: int = LONGEST_VALUE,
    ) -> None:
        """``parameters`` are those of the URL. ``fields`` are those of a form, each of up to ``longest`` characters,
        and make the route one for POST."""
        self.right = right
        self._guard = guard
        self._show = show
        self._parameters = parameters
        self._fields = fields
        self._longest = longest
        super().__init__(path, self._answer, methods=["GET"] if fields is None else ["POST"])

    async def _answer(self, request: Request) -> Response:
        """The page, or a page that says what is wrong: never an exception."""
        viewer: Viewer | None = None
        try:
            host = refused_host(request.headers, self._guard.allowed_hosts)
            if host is not None:
                message = f"The dashboard does not answer for the host {host[:100]!r}: add it to allowed_hosts."
                return error_page(request, None, 400, "An unknown host", message)
            if (entered := self._guard.sign_in.enter(request)) is not None:
                return entered
            viewer = await self._guard.viewer(request)
            refusal = self._refusal(request, viewer)
            if refusal is not None:
                return refusal
            assert viewer is not None  # noqa: S101 - refused above
            parameters = await self._read(request)
            if parameters is None:
                return too_large(error_page(request, viewer, 413, "Too large", "The form is larger than 2 MiB."))
            view = self._guard.view(request, viewer, parameters)
            with self._acting(request, viewer, parameters):
                return await self._guard.sent_forms.carry_out(parameters.form, partial(self._show, view))
        except OutboxError as error:
            return outbox_error_page(request, viewer, error)
        except Exception:  # noqa: BLE001 - a page with an error is what a browser can show; the log has the rest
            _log.exception("the page %s failed", request.url.path)
            message = "The page failed. The log of this process has the reason."
            return error_page(request, viewer, 500, "An error", message)

    def _acting(self, request: Request, viewer: Viewer, parameters: Parameters) -> AbstractContextManager[None]:
        """What a form changes is recorded as done by the viewer."""
        given = {name: value for name, value in parameters.given().items() if name not in _NOT_RECORDED}
        by = None if self._fields is None else viewer.name
        return acting(by, self.action, request.path_params | given, parameters.form)

    @property
    def action(self) -> str:
        """What the audit log calls it: as the command that does the same, ``retry`` or ``schedule pause``."""
        words = [word for word in self.path.split("/") if word and not word.startswith("{")]
        return " ".join(_COMMANDS.get(word, word) for word in words).strip()

    def _refusal(self, request: Request, viewer: Viewer | None) -> Response | None:
        if viewer is None:
            page = error_page(request, None, 401, "Not signed in", "Sign in to the application, then open this page.")
            return self._guard.sign_in.challenge(page)
        if request.method not in SAFE_METHODS and not is_same_origin(request.headers):
            message = "The request came from another site, or from a program that does not say where it comes from."
            return error_page(request, viewer, 403, "Refused", message)
        if self.right not in viewer.may:
            return error_page(request, viewer, 403, "Not allowed", f"{viewer.name} lacks the right “{self.right}”.")
        return None

    async def _read(self, request: Request) -> Parameters | None:
        """None where the form is too large."""
        if self._fields is None:
            return Parameters.of_url(request, self._parameters)
        body = await read_body(request)
        return None if body is None else Parameters.of_form(body, self._fields, self._longest)


def outbox_error_page(request: Request, viewer: Viewer | None, error: OutboxError) -> Response:
    for kind, status, title in _STATUS:
        if isinstance(error, kind):
            return error_page(request, viewer, status, title, str(error))
    _log.error("the page %s failed: %s", request.url.path, error)
    return error_page(request, viewer, 500, "An error", str(error))


def error_page(request: Request, viewer: Viewer | None, status: int, title: str, message: str) -> Response:
    """Errors before a person is signed in say nothing of the stores."""
    if viewer is None and status >= 500:
        message = "The sign-in failed. The log of this process has the reason."
    return render(request, "error.html", title, viewer, status=status, message=message)
