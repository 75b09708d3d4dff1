"""The dashboard: ``app.mount("/outbox", dashboard(auth=…))``, or alone as ``outbox web``.

It needs the extra ``web``: ``pip install 'outbox-queue[web]'``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outbox.errors import ConfigurationError
from outbox.web.rights import ADMIN, OPERATOR, VIEWER, Right, Viewer

if TYPE_CHECKING:
    from outbox.web.app import dashboard

__all__ = ["ADMIN", "OPERATOR", "VIEWER", "Right", "Viewer", "dashboard"]

_PACKAGES = ("starlette", "jinja2", "markupsafe", "sse_starlette", "uvicorn", "anyio")


def __getattr__(name: str) -> Any:
    # `outbox web --help`, and rights, need nothing of the extra.
    if name != "dashboard":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from outbox.web.app import dashboard
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise ConfigurationError(f"the dashboard needs a package: pip install 'outbox-queue[web]' ({error})") from error
    return dashboard
