"""Where the dashboard is mounted, told as Starlette tells it."""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES = re.compile("/{2,}")


class MountPoint:
    """Gives a request its whole path, and as ``root_path`` where the dashboard is.

    Routes and links go by both, as Starlette and FastAPI set them. Litestar hands over the path below the mount, with a
    slash at its end, and does not say where the mount is: ``raw_path`` does. Behind a proxy that takes away the prefix
    which ``root_path`` begins with, Starlette and FastAPI hand over a path without it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(_mounted(scope) if scope["type"] == "http" else scope, receive, send)


def _mounted(scope: Scope) -> Scope:
    """``scope`` itself, unless the beginning of its path was taken away and nothing says so."""
    root, below = str(scope.get("root_path", "")).rstrip("/"), str(scope["path"]).rstrip("/")
    if "//" in root:
        # Of an application whose own root_path ends with a slash.
        root = _SLASHES.sub("/", root)
        scope = {**scope, "root_path": root}
    whole = unquote((scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")).rstrip("/")
    if not whole.endswith(below) or not f"{below}/".startswith("/"):
        return scope
    # Links and redirects begin with it: two slashes would be another host.
    mount = "/" + whole.removesuffix(below).strip("/")
    if mount == "/":
        return _prefixed(scope, root)
    if root and (f"{below}/".startswith(f"{root}/") or root.endswith(mount)):
        return scope
    base = mount if f"{mount}/".startswith(f"{root}/") else root + mount
    return {**scope, "root_path": base, "path": base + (below or "/")}


def _prefixed(scope: Scope, root: str) -> Scope:
    """With the prefix that a proxy took away: the path begins with the end of ``root``, which is the mount."""
    path = str(scope["path"])
    if f"{path}/".startswith(f"{root}/"):
        return scope
    ends = (root[at:] for at, character in enumerate(root) if character == "/")
    mount = next((end for end in ends if path.startswith(f"{end}/")), None)
    return scope if mount is None else {**scope, "root_path": root, "path": root + path.removeprefix(mount)}
