"""Optional part: encrypted jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from outbox.drivers.values import RewrittenTexts


class EncryptedTexts(Protocol):
    """A store that can hold encrypted jobs."""

    async def rewrite(self, rewrite: Callable[[str], str]) -> RewrittenTexts:
        """Give every text that holds something encrypted to ``rewrite``, and store what that returns in its place, in
        short transactions. It waits for no other transaction: a text that another one holds is left."""
