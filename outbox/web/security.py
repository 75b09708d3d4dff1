"""What guards the dashboard before a page is made: hosts, origins, sizes, and the headers of every answer."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = frozenset({"GET", "HEAD"})
LONGEST_QUERY = 4_096
"""Bytes of the part of a URL after the question mark."""
LARGEST_BODY = 2 * 1024 * 1024
"""Bytes of a form. The largest is that of a payload, of 1 MiB by default."""
NONCE = "outbox_nonce"


def refused_host(headers: Headers, allowed: Sequence[str]) -> str | None:
    """The name of the host that a request is for, if it is not among those ``allowed``."""
    host = _host_name(headers.get("host", ""))
    return None if "*" in allowed or host in allowed else host


def _host_name(host: str) -> str:
    """``[::1]:8000`` and ``localhost:8000`` without their ports."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_same_origin(headers: Headers) -> bool:
    """Whether a browser sent the request from a page of the dashboard's own origin.

    Browsers say so in ``Sec-Fetch-Site``. Older ones send an ``Origin``, whose host has to be the ``Host``.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = headers.get("origin")
    if not origin or origin == "null":
        return False
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:
        return False


def content_security_policy(nonce: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'nonce-{nonce}'",
            f"style-src 'nonce-{nonce}'",
            "img-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


class SecurityHeaders:
    """Adds the headers of every answer, and gives each request its nonce."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope[NONCE] = nonce

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                _guard(MutableHeaders(scope=message), nonce)
            await send(message)

        await self._app(scope, receive, send_guarded)


def _guard(headers: MutableHeaders, nonce: str) -> None:
    headers["content-security-policy"] = content_security_policy(nonce)
    headers["x-content-type-options"] = "nosniff"
    headers["x-frame-options"] = "DENY"
    headers["referrer-policy"] = "same-origin"
    headers["cross-origin-opener-policy"] = "same-origin"
    headers["cross-origin-resource-policy"] = "same-origin"
    headers.setdefault("cache-control", "no-store")


def nonce_of(request: Request) -> str:
    nonce: str = request.scope[NONCE]
    return nonce


async def read_body(request: Request) -> bytes | None:
    """The body of a request; None where it is larger than `LARGEST_BODY`, of which no more is read."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            return None
    return bytes(body)


def too_large(response: Response) -> Response:
    """``response``, after which the connection is closed: the rest of the body was not read."""
    response.headers["connection"] = "close"
    return response
