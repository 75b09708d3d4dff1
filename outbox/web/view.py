"""What the function of a page is given: the request, its viewer, and the ways to read and to answer."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from outbox.console.formatting import line
from outbox.drivers.base import Driver
from outbox.drivers.values import StoredJob
from outbox.encryption import Keyring, keyring
from outbox.ids import JobId
from outbox.web.live import Live
from outbox.web.parameters import Parameters
from outbox.web.readings import Readings
from outbox.web.redaction import HIDDEN, Redaction
from outbox.web.rendering import templates
from outbox.web.rights import Right, Viewer
from outbox.web.security import nonce_of

T = TypeVar("T")

_log = logging.getLogger("outbox.web")

SAID = "outbox_said"
"""The cookie with what an action has done, for the page that follows it."""
_LONGEST_MESSAGE = 500

NAVIGATION = (
    ("/", "Overview", "gauge"),
    ("/queues", "Queues", "layers"),
    ("/jobs", "Jobs", "list"),
    ("/failures", "Failures", "bug"),
    ("/classes", "Job classes", "shapes"),
    ("/workers", "Workers", "server"),
    ("/schedules", "Schedules", "calendar-clock"),
    ("/keys", "Keys and limits", "key-round"),
    ("/batches", "Batches", "boxes"),
    ("/operations", "Operations", "scroll-text"),
    ("/health", "Health", "heart-pulse"),
)


@dataclass(frozen=True, slots=True)
class View:
    request: Request
    viewer: Viewer
    readings: Readings
    redaction: Redaction
    parameters: Parameters
    live: Live
    trace_url: str | None = None

    @property
    def base(self) -> str:
        return base_of(self.request)

    @property
    def sees_payloads(self) -> bool:
        return Right.SEE_PAYLOADS in self.viewer.may

    @property
    def keys(self) -> Keyring | None:
        """What opens encrypted jobs for this viewer; None without the right to see them."""
        if not self.sees_payloads or Right.SEE_ENCRYPTED not in self.viewer.may:
            return None
        return keyring(self.readings.stores.settings.encryption_keys)

    def connection(self) -> str:
        """The connection that the page is about.

        Raises:
            InvalidOption: the dashboard does not show it.
        """
        return self.readings.stores.chosen(self.parameters.text("connection"))

    def may(self, right: str) -> bool:
        return right in self.viewer.may

    async def change(self, connection: str, work: Callable[[Driver], Awaitable[T]]) -> T:
        """Change something in a connection."""
        return await self.readings.stores.change(connection, work)

    def done(self, message: str, place: str) -> Response:
        """Log what was done, and go on at ``place``, a path below the dashboard, with ``message`` above the page."""
        given = {name: value for name, value in self.parameters.given().items() if value and name != "payload"}
        which = " ".join(f"{name}={value}" for name, value in given.items())
        action = self.request.url.path.removeprefix(self.base)
        _log.info("%s", line(f"{self.viewer.name}: {action} {which}: {message}", limit=None))
        response = RedirectResponse(self.base + place, status_code=HTTPStatus.SEE_OTHER)
        encoded = base64.urlsafe_b64encode(message[:_LONGEST_MESSAGE].encode("utf-8", "replace")).decode()
        response.set_cookie(SAID, encoded, max_age=60, path=self.base or "/", httponly=True, samesite="strict")
        return response

    def payload(self, name: str, text: str) -> str:
        """The payload of a job as this viewer may see it."""
        return self.redaction.payload(name, text) if self.sees_payloads else HIDDEN

    def error(self, name: str, payload: str, text: str) -> str:
        """The text of an error as this viewer may see it."""
        return self.redaction.error(name, payload, text) if self.sees_payloads else HIDDEN

    def shown_reason(self, job: StoredJob, reasons: Mapping[JobId, str]) -> str:
        """Why a job is parked, or its last error."""
        reason = reasons.get(job.id)
        if reason is not None:
            return reason if self.sees_payloads else HIDDEN
        return "" if job.last_error is None else self.error(job.name, job.payload, job.last_error)

    def page(self, template: str, title: str, /, topics: Sequence[str] = (), **values: Any) -> HTMLResponse:
        """A page that is read again when one of its ``topics`` has changed."""
        events = {"topics": ",".join(topics), "seen": self.live.version} if topics else None
        return render(self.request, template, title, self.viewer, view=self, events=events, **values)


def base_of(request: Request) -> str:
    """The path at which the dashboard is mounted, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def render(
    request: Request, template: str, title: str, viewer: Viewer | None, /, status: int = 200, **values: Any
) -> HTMLResponse:
    """A page; ``viewer`` is None before a sign-in."""
    said = _said(request)
    path = request.scope["path"].removeprefix(base_of(request)) or "/"
    values.setdefault("events", None)
    text = templates.get_template(template).render(
        title=title,
        viewer=viewer,
        base=base_of(request),
        here=path,
        url=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        nonce=nonce_of(request),
        navigation=NAVIGATION,
        said=said,
        **values,
    )
    response = HTMLResponse(text, status_code=status)
    if said is not None:
        response.delete_cookie(SAID, path=base_of(request) or "/")
    return response


def _said(request: Request) -> str | None:
    """What the action before this page has done."""
    encoded = request.cookies.get(SAID)
    if encoded is None:
        return None
    try:
        return base64.urlsafe_b64decode(encoded).decode("utf-8", "replace")[:_LONGEST_MESSAGE]
    except (binascii.Error, ValueError):
        return None
