"""The one module that turns events into lines: for people, as JSON for machines, or as records of `logging`."""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from time import time as wall_clock  # under its own name: jobs replace `time.time` to test themselves
from typing import Any, TextIO
from uuid import UUID

from outbox.events import Event, Events, JobEvent, JobStarted, LogLinesDropped, WorkerStarted
from outbox.runtime.reporting.event_text import LOG_LEVELS, EventText, Level, banner, describe, one_line
from outbox.runtime.reporting.log_writer import Entries, LogWriter, Stream

_COLOURS = {Level.QUIET: "2", Level.GOOD: "32", Level.NOTICE: "36", Level.WARNING: "33", Level.ERROR: "31"}
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_PLAIN = frozenset({str, int, float, bool, type(None)})
_LEVELS = {Level.WARNING: "warning", Level.ERROR: "error"}
_ROOT = "outbox"

_describers: dict[type[Event], Callable[..., EventText]] = {}
"""By the type of an event: `describe` looks for them anew each time, and there is an event for each job."""


class EventLog:
    """Every event, and what outbox itself reports through `logging`, on its way to the log.

    Nothing here waits: entries go through a bounded queue to a thread. There they become lines of ``stream``, or, if
    the application has configured the logger ``outbox``, records for the application's handlers.
    """

    def __init__(self, events: Events, stream: TextIO | None, *, as_json: bool) -> None:
        self._stream = Stream(stream)
        terminal = self._stream.is_terminal
        # https://no-color.org
        coloured = terminal and not os.environ.get("NO_COLOR")
        self._style = as_line_of_json if as_json else as_coloured_line if coloured else as_line
        self._record_style = _record_as_json if as_json else _record_as_line
        self._writer = LogWriter(self._write, lambda count: Entries([LogLinesDropped(count)], wall_clock()))
        self._handler = _ToQueue(self._writer)
        self._routed = False
        self._application = _Routing([], propagate=False)
        # In a file, a line for the end of each attempt is enough.
        without = () if as_json or terminal else (JobStarted,)
        events.listen_to_batches(self._put, without=without)
        self._install()

    @property
    def dropped(self) -> int:
        """Lines that could not be written, and of which the log does not say so yet."""
        return self._writer.dropped

    def flush(self, seconds: float = 1.0) -> bool:
        """Wait until all lines are written, for ``seconds`` at most. Returns whether they are."""
        return self._writer.flush(seconds)

    def follow_application(self) -> None:
        """From now on, use the application's handlers if it has configured the logger ``outbox`` or one below it."""
        if not self._routed and _is_configured(self._handler):
            self._routed = True
        self._install()

    def restore(self) -> str | None:
        """Undo what a job did to the loggers. Returns what that was; None if it was nothing.

        A job that configures the logger ``outbox`` itself is followed, as an application is.
        """
        root = logging.getLogger(_ROOT)
        disabled = [logger for logger in _loggers() if logger.disabled]
        silenced = logging.root.manager.disable
        if self._handler in root.handlers and not disabled and not silenced:
            return None
        for logger in disabled:
            logger.disabled = False
        logging.disable(logging.NOTSET)
        self.follow_application()
        return "disabled or reconfigured logging"

    def _install(self) -> None:
        """Put the queue in front of every handler, so that none of them is called in a thread that must not wait."""
        root = logging.getLogger(_ROOT)
        others = [handler for handler in root.handlers if not isinstance(handler, _ToQueue)]
        if self._routed and (others or root.propagate):
            self._application = _Routing(others, propagate=root.propagate)
        root.handlers = [self._handler]
        root.propagate = False

    def _put(self, happened: Sequence[Event]) -> None:
        self._writer.put(happened, wall_clock())

    def _write(self, some: Sequence[Entries]) -> None:
        if not self._routed:
            lines = [self._line(what, at) for entries, at in some for what in entries]
            self._stream.write("".join(f"{line}\n" for line in lines))
            return
        for entries, at in some:
            for what in entries:
                self._application.handle(what if isinstance(what, logging.LogRecord) else as_record(what, at))

    def _line(self, what: Event | logging.LogRecord, at: float) -> str:
        return self._record_style(what) if isinstance(what, logging.LogRecord) else self._style(what, at)


class _ToQueue(logging.Handler):
    """The only handler of the logger ``outbox``."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def handle(self, record: logging.LogRecord) -> bool:
        # Without the lock of `logging`, which a job's own handler may hold for ever.
        if record.levelno >= logging.INFO:
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        self._writer.put((record,), record.created)


class _Routing:
    """The handlers that the application gave to the logger ``outbox``, and those above it."""

    def __init__(self, handlers: Sequence[logging.Handler], *, propagate: bool) -> None:
        self._handlers = handlers
        self._propagate = propagate

    def handle(self, record: logging.LogRecord) -> None:
        """Each handler answers for itself: one that fails keeps no other from its records."""
        if not logging.getLogger(record.name).isEnabledFor(record.levelno):
            return
        below = logging.getLogger(record.name).handlers if hasattr(record, "event") and record.name != _ROOT else []
        above = logging.root.handlers if self._propagate else []
        for handler in (*below, *self._handlers, *above):
            if record.levelno >= handler.level:
                handler.handle(record)


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict
    found = [known.get(name) for name in _logger_names(len(known))]
    return [logger for logger in found if isinstance(logger, logging.Logger)]


@lru_cache(maxsize=1)
def _logger_names(_known: int) -> tuple[str, ...]:
    """The names of outbox's own loggers, of so many that are known. Names are added, and none is ever removed."""
    names = list(logging.root.manager.loggerDict)
    return tuple(name for name in names if f"{name}.".startswith(f"{_ROOT}."))


def _is_configured(ours: logging.Handler) -> bool:
    return any(logger.level or any(each is not ours for each in logger.handlers) for logger in _loggers())


def _described(event: Event) -> EventText:
    kind = type(event)
    describer = _describers.get(kind) or _describers.setdefault(kind, describe.dispatch(kind))
    return describer(event)


def as_record(event: Event, at: float) -> logging.LogRecord:
    """The event for handlers of `logging`: its name in snake case as ``event``, its fields as ``details``."""
    level, word, text = _described(event)
    name = "outbox.jobs" if isinstance(event, JobEvent) else "outbox.worker"
    record = logging.LogRecord(name, LOG_LEVELS[level], __file__, 0, f"{word} {text}", None, None)
    record.created, record.msecs = at, at % 1 * 1000
    record.event = _snake_case(type(event).__name__)
    record.details = _details(event)
    return record


def as_line(event: Event, at: float) -> str:
    """``2026-01-31T12:00:00+01:00  done  app.SendReceipt …``"""
    _, word, text = _described(event)
    return f"{_local(int(at))}  {word:<9} {text}"


def as_coloured_line(event: Event, at: float) -> str:
    if isinstance(event, WorkerStarted):
        return banner(event)
    level, word, text = _described(event)
    return f"\x1b[2m{_local(int(at))[11:19]}\x1b[0m  \x1b[{_COLOURS[level]}m{word:<9}\x1b[0m {text}"


def as_line_of_json(event: Event, at: float) -> str:
    """All fields of the event, with its name in snake case as ``event``."""
    values: dict[str, Any] = {
        "time": _iso(at),
        "level": _LEVELS.get(_described(event).level, "info"),
        "event": _snake_case(type(event).__name__),
    }
    return json.dumps(values | _details(event))


def _details(event: Event) -> dict[str, Any]:
    return {name: _plain(getattr(event, name)) for name in type(event).__dataclass_fields__}


@lru_cache
def _snake_case(name: str) -> str:
    return _CAPITAL.sub("_", name).lower()


def _record_as_json(record: logging.LogRecord) -> str:
    trace = _trace(record)
    values = {
        "time": _iso(record.created),
        "level": record.levelname.lower(),
        "event": "log",
        "message": record.getMessage(),
    }
    return json.dumps(values | ({"traceback": trace} if trace else {}))


def _record_as_line(record: logging.LogRecord) -> str:
    trace = _trace(record)
    line = f"{_local(int(record.created))}  {record.levelname.lower():<9} {one_line(record.getMessage())}"
    return f"{line}\n{trace.rstrip()}" if trace else line


def _trace(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return "".join(traceback.format_exception(error)) if error is not None else ""


@lru_cache(maxsize=1)
def _local(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).astimezone().isoformat()


@lru_cache(maxsize=1)
def _utc(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _iso(at: float) -> str:
    milliseconds = int(at * 1000)
    return f"{_utc(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


def _plain(value: Any) -> Any:
    """What JSON can say."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
