"""Unique jobs of these tests."""

from __future__ import annotations

from outbox import Job


class Sync(Job):
    name = "unique.Sync"
    unique = ("customer_id",)

    customer_id: int
    edition: int = 0

    async def handle(self) -> None:
        """Never run: these tests end at the queue."""


class ByMethod(Job):
    name = "unique.ByMethod"

    code: str

    def unique_key(self) -> str:
        return self.code.lower()

    async def handle(self) -> None:
        """Never run."""


class Latest(Sync):
    name = "unique.Latest"
    unique_until = "end"
    on_conflict = "replace"


class Quiet(Sync):
    name = "unique.Quiet"
    debounce = 300
    max_wait = 3_600
    on_conflict = "replace"


class Once(Sync):
    name = "unique.Once"
    unique_until = 60
