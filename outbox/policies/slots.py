"""Slots: numbered rows that transactions lock in place of keys, and of the gaps between keys."""

from __future__ import annotations

from collections.abc import Iterable

SLOTS = 4_096
"""Rows of each table of slots."""


def slot_of(key: bytes) -> int:
    """The slot of a key, which is a hash."""
    return int.from_bytes(key[:2]) % SLOTS


def slots_of(keys: Iterable[bytes]) -> list[int]:
    """The slots of these keys, each once, in the order in which all transactions lock them."""
    return sorted({slot_of(key) for key in keys})
