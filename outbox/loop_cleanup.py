"""Closing what belongs to an event loop when the loop ends, and what is left of a loop that ended without notice.

``asyncio.run``, ``asyncio.Runner``, uvloop, anyio and pytest's plugins all call ``loop.shutdown_asyncgens()`` before
they close a loop. That closes every asynchronous generator that was begun on it: here one that generates nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

CLOSE_SECONDS = 2.0
"""For which a loop that ends waits until its connections are closed."""

_log = logging.getLogger("outbox.connections")


def before_loop_ends(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None] | None:
    """Have the running loop await ``close`` before it is closed, unless it ends without shutting down its asynchronous
    generators. The caller keeps what is returned for as long as ``close`` is to be called; None if it is too late.
    None as well in the first step of a task of `outbox.sync`, which closes its connections itself.
    """
    loop = asyncio.get_running_loop()
    if getattr(loop, "_asyncgens_shutdown_called", False) or not loop.is_running():
        return None
    generator = _closing(close)
    # It yields at once: nothing is awaited.
    with suppress(StopIteration):
        generator.__anext__().send(None)
    return generator


async def _closing(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await close()
        except Exception:  # noqa: BLE001 - the loop ends, and nothing of the application is waiting for this
            _log.debug("connections of an event loop that ends could not be closed in order", exc_info=True)


def drop_transport(transport: Any) -> None:
    """Close the socket of a transport whose loop is closed and cannot do it. The server sees the connection end."""
    inner = _under_tls(transport)
    for each in (transport, inner):
        # It schedules its own end, on a loop that takes nothing any more.
        with suppress(Exception):
            each.abort()
    # asyncio's transports have no public way to be closed without a loop; those of uvloop were closed with it.
    finish = getattr(inner, "_call_connection_lost", None)
    if finish is not None and getattr(inner, "_sock", None) is not None:
        with suppress(Exception):
            finish(None)


def _under_tls(transport: Any) -> Any:
    protocol = getattr(transport, "_ssl_protocol", None)
    return getattr(protocol, "_transport", None) or transport
