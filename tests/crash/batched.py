"""Members of batches, and what follows them."""

from __future__ import annotations

from outbox import Job
from tests.support.recorded_jobs import note


class Member(Job):
    name = "crash.batched.Member"
    max_tries = 50

    number: int

    async def handle(self) -> None:
        note("member", self)


class Then(Job):
    name = "crash.batched.Then"
    max_tries = 50

    number: int

    async def handle(self) -> None:
        note("then", self)
