"""Ways to sign in: what the application says, a user with a password, or a token that is used once."""

from __future__ import annotations

import base64
import binascii
import hmac
import inspect
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from outbox.errors import ConfigurationError
from outbox.web.rights import Viewer

Auth = Callable[[Request], Viewer | Awaitable[Viewer | None] | None]
"""``auth(request)``, sync or async: the viewer, or None for a person who is not signed in."""

TOKEN = "token"  # noqa: S105 - the name of a parameter
_COOKIE = "outbox_session"


class SignIn(Protocol):
    """A way to sign in."""

    async def viewer(self, request: Request) -> Viewer | None: ...

    def challenge(self, response: Response) -> Response:
        """``response`` to a person who is not signed in, with what a browser needs to ask."""

    def enter(self, request: Request) -> Response | None:
        """The answer to a request that carries a proof in its URL; None for any other."""


class ApplicationAuth:
    """Asks the application."""

    def __init__(self, auth: Auth) -> None:
        if not callable(auth):
            raise ConfigurationError(f"auth is a function of a request that returns a Viewer or None, not {auth!r}")
        self._auth = auth

    async def viewer(self, request: Request) -> Viewer | None:
        """
        Raises:
            ConfigurationError: ``auth`` returned something else than a viewer or None.
        """
        found = self._auth(request)
        if inspect.isawaitable(found):
            found = await found
        if found is not None and not isinstance(found, Viewer):
            raise ConfigurationError(f"auth returns an outbox.web.Viewer or None, not a {type(found).__name__}")
        return found

    def challenge(self, response: Response) -> Response:
        return response

    def enter(self, request: Request) -> Response | None:  # noqa: ARG002 - of `SignIn`
        return None


class Password:
    """HTTP Basic: one user, one password, all rights."""

    def __init__(self, user: str, password: str) -> None:
        if not user or not password or ":" in user:
            raise ConfigurationError("a dashboard needs a user, without a colon, and a password, neither empty")
        self._user = user
        self._expected = f"{user}:{password}".encode()

    async def viewer(self, request: Request) -> Viewer | None:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return None
        return Viewer(self._user, "admin") if hmac.compare_digest(given, self._expected) else None

    def challenge(self, response: Response) -> Response:
        response.headers["www-authenticate"] = 'Basic realm="outbox", charset="UTF-8"'
        return response

    def enter(self, request: Request) -> Response | None:  # noqa: ARG002 - of `SignIn`
        return None


class OneTimeToken:
    """A token in the URL that `outbox web` prints. The first request that has it gets a cookie for the session."""

    def __init__(self) -> None:
        self.token: str | None = secrets.token_urlsafe(32)
        """None once it has been used."""
        self._session = secrets.token_urlsafe(32)

    async def viewer(self, request: Request) -> Viewer | None:
        return Viewer("local", "admin") if self._knows(request) else None

    def _knows(self, request: Request) -> bool:
        given = request.cookies.get(_COOKIE, "")
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._session.encode())

    def challenge(self, response: Response) -> Response:
        return response

    def enter(self, request: Request) -> Response | None:
        given = request.query_params.get(TOKEN)
        if given is not None and self._knows(request):
            return RedirectResponse(request.url.path, status_code=303)
        if given is None or self.token is None:
            return None
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
            return None
        self.token = None
        response = RedirectResponse(request.url.path, status_code=303)
        response.set_cookie(_COOKIE, self._session, httponly=True, samesite="strict", path="/")
        return response
