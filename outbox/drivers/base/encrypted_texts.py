"""Optional part: encrypted jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from outbox.drivers.values import RewrittenTexts

Rewrite = Callable[[str], str]
"""Gives the text that is to stand in place of one that holds something encrypted."""


class EncryptedTexts(Protocol):
    """A store that can hold encrypted jobs."""

    async def rewrite(self, rewrite: Rewrite) -> RewrittenTexts:
        """Give every text that holds something encrypted to ``rewrite``, and store what that returns in its place, in
        short transactions. It waits for no other transaction: a text that another one holds is left."""
