"""Removes the frames of outbox from stored tracebacks: they do not tell why a job failed."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

_FRAME = re.compile(r'^(?P<indent>[ |+-]*)File "(?P<path>[^"]*)", line \d+')
_PACKAGE = "outbox"


def without_own_frames(traceback: str) -> tuple[str, int]:
    """The shortened traceback and the number of omitted frames. One without other frames stays whole."""
    kept: list[str] = []
    hidden = shown = 0
    inside: str | None = None
    """The indentation of a frame of outbox, while the lines of its source are skipped."""
    for text in traceback.splitlines(keepends=True):
        frame = _FRAME.match(text)
        if frame is not None:
            own = _is_own(frame["path"])
            hidden, shown = hidden + own, shown + (not own)
            inside = frame["indent"] if own else None
        elif inside is not None and not text.startswith(f"{inside}  "):
            inside = None
        if inside is None:
            kept.append(text)
    return ("".join(kept), hidden) if shown else (traceback, 0)


def _is_own(path: str) -> bool:
    """Whether the file belongs to this package, in any place where a worker may have installed it."""
    parts = path.replace("\\", "/").split("/")
    places = [position for position, part in enumerate(parts) if part == _PACKAGE]
    return any("/".join(parts[place + 1 :]) in _own_files() for place in places)


@cache
def _own_files() -> frozenset[str]:
    root = Path(str(files(_PACKAGE)))
    return frozenset(file.relative_to(root).as_posix() for file in root.rglob("*.py"))
