"""The one module that turns events into lines: for people, or as JSON for machines."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, TextIO
from uuid import UUID

from outbox.events import Event, Events, JobStarted, WorkerStarted
from outbox.runtime.wording import Level, banner, describe, one_line

_COLOURS = {Level.QUIET: "2", Level.GOOD: "32", Level.NOTICE: "36", Level.WARNING: "33", Level.ERROR: "31"}
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_PLAIN = frozenset({str, int, float, bool, type(None)})
_LEVELS = {Level.WARNING: "warning", Level.ERROR: "error"}


def listen(events: Events, stream: TextIO, *, as_json: bool) -> None:
    """Write every event to ``stream``, a line each; and what outbox itself reports through `logging`."""
    write = _Writer(stream)
    terminal = stream.isatty()
    style = as_line_of_json if as_json else as_coloured_line if terminal else as_line
    # In a file, a line for the end of each attempt is enough.
    without = () if as_json or terminal else (JobStarted,)
    events.listen_to_batches(lambda happened: write("\n".join(map(style, happened))), without=without)
    logger = logging.getLogger("outbox")
    logger.handlers = [_Records(write, as_json=as_json)]
    logger.propagate = False


class _Writer:
    """Lines from several threads, each written whole. A log that cannot be written stops nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, lines: str) -> None:
        with self._lock:
            try:
                self._stream.write(lines + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                # Whoever read the pipe has gone, or the stream is closed.
                return


def as_line(event: Event) -> str:
    """``2026-01-31T12:00:00+01:00  done  app.SendReceipt …``"""
    _, word, text = describe(event)
    return f"{_local(int(time.time()))}  {word:<9} {text}"


def as_coloured_line(event: Event) -> str:
    if isinstance(event, WorkerStarted):
        return banner(event)
    level, word, text = describe(event)
    return f"\x1b[2m{_local(int(time.time()))[11:19]}\x1b[0m  \x1b[{_COLOURS[level]}m{word:<9}\x1b[0m {text}"


def as_line_of_json(event: Event) -> str:
    """All fields of the event, with its name in snake case as ``event``."""
    values: dict[str, Any] = {
        "time": _now(),
        "level": _LEVELS.get(describe(event)[0], "info"),
        "event": _snake_case(type(event).__name__),
    }
    for name in type(event).__dataclass_fields__:
        values[name] = _plain(getattr(event, name))
    return json.dumps(values)


@lru_cache
def _snake_case(name: str) -> str:
    return _CAPITAL.sub("_", name).lower()


class _Records(logging.Handler):
    """Reports of outbox's own loggers, among the events."""

    def __init__(self, write: Callable[[str], None], *, as_json: bool) -> None:
        super().__init__(logging.INFO)
        self._write = write
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        trace = "".join(traceback.format_exception(error)) if error is not None else ""
        if self._as_json:
            values = {"time": _now(), "level": record.levelname.lower(), "event": "log", "message": record.getMessage()}
            self._write(json.dumps(values | ({"traceback": trace} if trace else {})))
            return
        line = f"{_local(int(time.time()))}  {record.levelname.lower():<9} {one_line(record.getMessage())}"
        self._write(f"{line}\n{trace.rstrip()}" if trace else line)


@lru_cache(maxsize=1)
def _local(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).astimezone().isoformat()


@lru_cache(maxsize=1)
def _utc(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _now() -> str:
    milliseconds = time.time_ns() // 1_000_000
    return f"{_utc(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


def _plain(value: Any) -> Any:
    """What JSON can say."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
