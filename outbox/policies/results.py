"""What is kept of a finished job, and how far a running one is."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from outbox.backoff import MAX_DELAY
from outbox.errors import InvalidOption

TEXT_LIMIT = 255
"""Characters of what a job says of its progress."""


class Progress(NamedTuple):
    fraction: float
    text: str


def check_keep_for(keep_for: object) -> float:
    """
    Raises:
        InvalidOption: it is no number of seconds from 0 to ten years.
    """
    seconds = keep_for.total_seconds() if isinstance(keep_for, timedelta) else keep_for
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_DELAY:
        raise InvalidOption(
            f"keep_for is seconds (up to ten years), 0 for not at all, or a timedelta, not {keep_for!r}"
        )
    return float(seconds)


def check_progress(fraction: object, text: object) -> Progress:
    """
    Raises:
        InvalidOption: the fraction is no number from 0 to 1, or the text is none.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        raise InvalidOption(f"progress is a number from 0 to 1, not {fraction!r}")
    if not isinstance(text, str):
        raise InvalidOption(f"what a job says of its progress is a text, not {text!r}")
    storable = text.encode("utf-8", "backslashreplace").decode()
    return Progress(float(fraction), storable[:TEXT_LIMIT])
