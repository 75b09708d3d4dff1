"""Phrases that several texts share."""

from __future__ import annotations

from outbox.events import JobEvent
from outbox.settlement import Failure

_LONGEST = 300
_MOST_NAMES = 20
_LAST_DIGITS = 0xFFFF_FFFF_FFFF
"""Twelve hexadecimal digits of a job id."""


def one_line(text: str) -> str:
    """Printable, short, and without what would move a terminal's cursor."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def asked_by(name: str | None) -> str:
    return "" if name is None else f", for {name}"


def attempt_name(event: JobEvent) -> str:
    return f"{event.name} {event.job_id.int & _LAST_DIGITS:012x} attempt {event.attempt}"


def job_count(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def job_names(jobs: tuple[str, ...]) -> str:
    more = f" and {len(jobs) - _MOST_NAMES} more" if len(jobs) > _MOST_NAMES else ""
    return ", ".join(jobs[:_MOST_NAMES]) + more


def failure_text(failure: Failure) -> str:
    return one_line(f"{failure.type}: {failure.message}" if failure.message else failure.type)


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
