"""How many rows one statement names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

KEYS_PER_STATEMENT = 500
"""With a thousand keys MariaDB turns the list into a join, and may then read the whole table. It would wait for rows
that are not in the list, such as those of an application's open transaction."""

PAIRS_PER_STATEMENT = KEYS_PER_STATEMENT - 1
"""MariaDB counts the two values of a pair one by one."""


def chunked(items: Sequence[T], size: int = KEYS_PER_STATEMENT) -> Iterator[Sequence[T]]:
    """``items`` in portions for one statement each."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
