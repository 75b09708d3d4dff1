"""Encrypted jobs under test, and what they wrote."""

from __future__ import annotations

from typing import Any, ClassVar

from outbox import Job

KEY, NEXT = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=", "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="

ran: list[tuple[str, Any]] = []


class Secret(Job):
    name = "tests.encrypted.Secret"
    encrypt = True
    max_tries = 2
    backoff = 0

    card: str
    fails: int = 0
    """Attempts that fail."""

    async def handle(self) -> str:
        ran.append((self.card, self.context.previous))
        if self.context.attempt <= self.fails:
            raise ValueError(f"the card {self.card} was refused")
        return f"paid with {self.card}"

    async def failed(self, error: BaseException) -> None:
        ran.append(("failed", str(error)))


class UniqueSecret(Job):
    name = "tests.encrypted.UniqueSecret"
    encrypt = True
    unique: ClassVar = ["card"]
    on_conflict = "replace"

    card: str
    amount: int = 0

    async def handle(self) -> None:
        ran.append((self.card, self.amount))


class Open(Job):
    """A job like any other, which reads the result of an encrypted one."""

    name = "tests.encrypted.Open"
    max_tries = 1

    card: str = ""

    async def handle(self) -> None:
        ran.append(("open", self.context.previous))
