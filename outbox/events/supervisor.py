"""What a supervisor does with its worker processes."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.events.base import Event


@dataclass(frozen=True, slots=True)
class ProcessStarted(Event):
    """A supervisor started worker process number ``index``."""

    index: int
    pid: int


@dataclass(frozen=True, slots=True)
class ProcessEnded(Event):
    """A worker process ended. ``exit_code`` is negative for a signal; ``restart_in`` is None where it is not
    replaced."""

    index: int
    pid: int
    exit_code: int
    restart_in: float | None


@dataclass(frozen=True, slots=True)
class SourcesChanged(Event):
    """``--reload`` saw files change; the worker processes start anew."""

    paths: tuple[str, ...]
