"""Serves the dashboard alone, with uvicorn."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

import click
import uvicorn
from starlette.applications import Starlette

from outbox import registry
from outbox.client_state import current_settings
from outbox.errors import ConfigurationError
from outbox.web.app import build, dashboard
from outbox.web.authentication import TOKEN, OneTimeToken
from outbox.web.redaction import Redaction
from outbox.web.rights import ADMIN, READ_ONLY
from outbox.web.routes import Guard
from outbox.web.stores import WebStores
from outbox.web.traces import check_trace_url

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_GRACE = 2
"""Seconds for which open pages may go on when the server stops."""


def serve(
    *,
    host: str,
    port: int,
    user: str | None,
    password: str | None,
    read_only: bool,
    connections: Sequence[str] | None,
    allowed_hosts: Sequence[str] | None,
    trace_url: str | None = None,
) -> None:
    """Serve until a signal ends the process.

    Raises:
        ConfigurationError: there is no user with a password and the host is not loopback, or it cannot be listened on.
    """
    registry.import_jobs(current_settings().jobs)
    token: OneTimeToken | None = None
    hosts = tuple(allowed_hosts or ((*_LOOPBACK_NAMES, host.lower()) if is_loopback(host) else ("*",)))
    if user is None and password is None:
        token = _token_for(host)
        app = _with_token(token, read_only, hosts, connections, trace_url)
    else:
        app = dashboard(
            user=user,
            password=password,
            read_only=read_only,
            allowed_hosts=hosts,
            connections=connections,
            trace_url=trace_url,
        )
    listening = _listen(host, port)
    click.echo(_address(host, listening.getsockname()[1], token))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        # uvicorn has ended in order, and raises the signal again.
        click.echo("stopped")


def _token_for(host: str) -> OneTimeToken:
    if not is_loopback(host):
        raise ConfigurationError(
            f"{host} can be reached from other machines: give --user and OUTBOX_WEB_PASSWORD, or listen on 127.0.0.1"
        )
    return OneTimeToken()


def _with_token(
    token: OneTimeToken,
    read_only: bool,
    hosts: tuple[str, ...],
    connections: Sequence[str] | None,
    trace_url: str | None,
) -> Starlette:
    stores = WebStores(connections=connections)
    may = READ_ONLY if read_only else ADMIN
    return build(Guard(token, may, hosts, stores, Redaction(), check_trace_url(trace_url)))


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be listened on: {error.strerror}: choose another --port"
        ) from error


def _address(host: str, port: int, token: OneTimeToken | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    query = "" if token is None else f"?{TOKEN}={token.token}"
    return f"http://{shown}:{port}/{query}"
