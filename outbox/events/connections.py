"""Stores and sources of wake-ups: whether they answer."""

from __future__ import annotations

from dataclasses import dataclass

from outbox.events.base import Event


@dataclass(frozen=True, slots=True)
class ConnectionDown(Event):
    """A store stopped answering. Emitted once, however long it lasts."""

    connection: str
    error: str


@dataclass(frozen=True, slots=True)
class ConnectionUp(Event):
    """It answers again, after ``seconds``."""

    connection: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WakeupsUnheard(Event):
    """What tells of new jobs, ``source``, is not heard any more. Until it is, they are found by polling."""

    connection: str
    source: str
    error: str


@dataclass(frozen=True, slots=True)
class WakeupsHeard(Event):
    """It is heard again."""

    connection: str
    source: str
