"""How many rows one statement names, and how many bytes of rows it carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

KEYS_PER_STATEMENT = 500
"""With a thousand keys MariaDB turns the list into a join, and may then read the whole table. It would wait for rows
that are not in the list, such as those of an application's open transaction."""

PAIRS_PER_STATEMENT = KEYS_PER_STATEMENT - 1
"""MariaDB counts the two values of a pair one by one."""

ROWS_PER_STATEMENT = 1_000
"""Of an INSERT."""

BYTES_PER_STATEMENT = 7_000_000
"""Less than half of the smallest max_allowed_packet in use (MariaDB's 16 MiB), because escaping can double what is
sent. A server ends the connection over a packet that is larger, which looks as if it had gone away."""


def chunked(items: Sequence[T], size: int = KEYS_PER_STATEMENT) -> Iterator[Sequence[T]]:
    """``items`` in portions for one statement each."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def packets(
    rows: Sequence[T],
    size: Callable[[T], int],
    limit: int = BYTES_PER_STATEMENT,
    *,
    rows_limit: int = ROWS_PER_STATEMENT,
) -> Iterator[Sequence[T]]:
    """``rows`` in groups that one statement can carry, whose ``size`` in bytes is known."""
    if len(rows) == 1:
        yield rows
        return
    start = total = 0
    for position, row in enumerate(rows):
        bytes_here = size(row)
        if position > start and (position - start >= rows_limit or total + bytes_here > limit):
            yield rows[start:position]
            start, total = position, 0
        total += bytes_here
    if start < len(rows):
        yield rows[start:]
