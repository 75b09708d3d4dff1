"""``outbox web``: the dashboard alone, without an application."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from outbox.console.command import Misconfigured, connection_name

_PORT = 8822


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=_PORT, show_default=True, help="0: any that is free.")
@click.option("--user", envvar="OUTBOX_WEB_USER", metavar="NAME", help="Ask for this user and the password.")
@click.option(
    "--password",
    envvar="OUTBOX_WEB_PASSWORD",
    metavar="TEXT",
    help="Best given as OUTBOX_WEB_PASSWORD: `ps` shows flags.",
)
@click.option("--read-only", is_flag=True, help="Pages only: nothing can be changed.")
@click.option(
    "--connection",
    "connections",
    type=connection_name,
    multiple=True,
    metavar="NAME",
    help="Only this connection. Repeatable.",
)
@click.option(
    "--allowed-host", "allowed_hosts", multiple=True, metavar="NAME", help="Answer for this host. Repeatable."
)
@click.option(
    "--trace-url",
    envvar="OUTBOX_WEB_TRACE_URL",
    metavar="URL",
    help="Where the trace of a job is, with {trace_id} in it.",
)
def web(
    host: str,
    port: int,
    user: str | None,
    password: str | None,
    read_only: bool,
    connections: Sequence[str],
    allowed_hosts: Sequence[str],
    trace_url: str | None,
) -> None:
    """Serve the dashboard, until it is interrupted. It needs the extra `web`.

    Without a user and a password it listens on loopback only, and prints a URL with a token that is used once.
    """
    try:
        server: Any = import_module("outbox.web.server")
    except ModuleNotFoundError as error:
        raise Misconfigured(f"the dashboard needs a package: pip install 'outbox-queue[web]' ({error})") from error
    server.serve(
        host=host,
        port=port,
        user=user,
        password=password,
        read_only=read_only,
        connections=list(connections) or None,
        allowed_hosts=list(allowed_hosts) or None,
        trace_url=trace_url,
    )
