"""Values as text for people."""

from __future__ import annotations

import json
from datetime import datetime

from outbox.ids import JobId
from outbox.relay.route import relayed_connection

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_CELL = 500
"""More characters than any cell shows."""


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


ORDERED = {"quiet": "be quiet", "resume": "go on", "stop": "stop"}
"""What a worker is asked to do, by its `WorkerOrder`."""


def mebibytes(count: int | None) -> str:
    """Bytes in MiB; empty where they are not known."""
    return "" if count is None else f"{count / 1024**2:,.0f} MiB"


def queue_name(queue: str) -> str:
    """The name of a queue, or the target of a relay's queue."""
    target = relayed_connection(queue)
    return queue if target is None else f"on its way to {target}"


def one_line(text: str) -> str:
    return " ".join(text.split())


def short_id(job_id: JobId) -> str:
    """The last group. Ids begin with their time, so those of one dispatch differ only at the end."""
    return str(job_id)[-12:]


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def line(text: str, limit: int | None = _CELL) -> str:
    """The first ``limit`` characters on one line, with control characters escaped."""
    return "".join(_visible(character) for character in text[:limit])


def block(text: str) -> str:
    """The whole text with its line breaks, other control characters escaped."""
    return "".join(character if character in "\n\t" else _visible(character) for character in text)


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def indented_json(text: str) -> str:
    """Stored JSON over several lines. Other text is returned as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
