"""Files for browsers. Their path has a version in it, so that browsers may keep them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from outbox.web.rendering import STATIC

_FILES = {
    "dashboard.css": "text/css",
    "dashboard.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "hx-sse.min.js": "text/javascript",
    "charts.js": "text/javascript",
    "uplot.min.css": "text/css",
    "uplot.min.js": "text/javascript",
    "favicon.svg": "image/svg+xml",
}


async def asset(request: Request) -> Response:
    """A file of this package. It says nothing of jobs, so that the page for signing in can have it."""
    name = request.path_params["name"]
    if name not in _FILES:
        return PlainTextResponse("There is no such file.", status_code=404)
    return FileResponse(
        STATIC / name, media_type=_FILES[name], headers={"cache-control": "private, max-age=31536000, immutable"}
    )
