"""Values as people read them."""

from __future__ import annotations

import json
from datetime import datetime

from outbox.ids import JobId
from outbox.relay.route import relayed_connection

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_CELL = 500
"""More characters than a line of any table shows."""


def age(seconds: float) -> str:
    """``42s``, ``3m 20s``, ``5h 12m``, ``3d 4h``."""
    whole = max(0, int(seconds))
    for unit, size, smaller, smaller_size in (
        ("d", _DAY, "h", _HOUR),
        ("h", _HOUR, "m", _MINUTE),
        ("m", _MINUTE, "s", 1),
    ):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // smaller_size}{smaller}"
    return f"{whole}s"


def ago(moment: datetime, now: datetime) -> str:
    return f"{age((now - moment).total_seconds())} ago"


def due(moment: datetime, now: datetime) -> str:
    """``now``, ``in 5m 10s``, ``3m 20s ago``."""
    seconds = (moment - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {age(seconds)}" if seconds > 0 else f"{age(-seconds)} ago"


def queue_name(queue: str) -> str:
    """A queue, or where the rows in it are on their way to."""
    target = relayed_connection(queue)
    return queue if target is None else f"on its way to {target}"


def one_line(text: str) -> str:
    return " ".join(text.split())


def short_id(job_id: JobId) -> str:
    """The last group. An id begins with the time at which it was made, so that jobs of one dispatch begin alike."""
    return str(job_id)[-12:]


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def line(text: str, limit: int | None = _CELL) -> str:
    """The beginning of ``text``, on one line, without anything that a terminal would obey."""
    return "".join(_visible(character) for character in text[:limit])


def block(text: str) -> str:
    """All of it, with its own line ends."""
    return "".join(character if character in "\n\t" else _visible(character) for character in text)


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def indented_json(text: str) -> str:
    """Stored JSON over several lines, or the text as it is where it is not JSON."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
