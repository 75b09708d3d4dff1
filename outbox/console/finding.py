"""A finding of `outbox check`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """``advice`` says what to do. It is empty if nothing has to be done."""

    level: Level
    subject: str
    message: str
    advice: str = ""

    @classmethod
    def ok(cls, subject: str, message: str) -> Finding:
        return cls(Level.OK, subject, message)

    @classmethod
    def info(cls, subject: str, message: str) -> Finding:
        return cls(Level.INFO, subject, message)

    @classmethod
    def warning(cls, subject: str, message: str, advice: str) -> Finding:
        """Jobs run, but not as well as they could, or not for long."""
        return cls(Level.WARNING, subject, message, advice)

    @classmethod
    def problem(cls, subject: str, message: str, advice: str = "") -> Finding:
        """Jobs cannot be dispatched or run."""
        return cls(Level.PROBLEM, subject, message, advice)
