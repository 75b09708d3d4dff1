"""Server-sent events for open pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from outbox.errors import InvalidOption
from outbox.web.live import Live, check_topics
from outbox.web.view import View

PARAMETERS = ("topics", "seen")
_LONGEST = 300.0
"""Seconds after which a page connects again, and is asked again who looks."""


async def listen(view: View) -> Response:
    """Tell a page of changes of its topics."""
    topics = check_topics(view.parameters.required("topics"))
    seen = view.parameters.text("seen") or "0"
    if not (seen.isascii() and seen.isdigit() and len(seen) <= 18):
        raise InvalidOption(f"seen is a whole number, not {seen[:20]!r}")
    return EventSourceResponse(_events(view.live, topics, int(seen)))


async def _events(live: Live, topics: Collection[str], seen: int) -> AsyncIterator[ServerSentEvent]:
    async with live.open_page(topics, seen) as changed:
        try:
            async with asyncio.timeout(_LONGEST):
                while True:
                    await changed.wait()
                    changed.clear()
                    yield ServerSentEvent(event="changed", data=str(live.version))
        except TimeoutError:
            return
