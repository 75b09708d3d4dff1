"""Jobs whose effects are rows of the application's own tables, written in the transaction that ends each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from outbox import Job

PLAIN, ORDERED, MEMBER, END = "plain", "ordered", "member", "end"
_INSERT = text("INSERT INTO effects (kind, owner, number, seen) VALUES (:kind, :owner, :number, :seen)")


class Plain(Job):
    name = "crash.mixed.Plain"
    max_tries = 100
    backoff = 0

    number: int

    def handle(self, session: Session) -> None:
        session.execute(_INSERT, {"kind": PLAIN, "owner": 0, "number": self.number, "seen": 0})


class Ordered(Job):
    """Fails sometimes, after it has written: the row goes with its transaction."""

    name = "crash.mixed.Ordered"
    ordering_key = "owner"
    max_tries = 100
    backoff = 0

    owner: int
    number: int

    async def handle(self, session: AsyncSession) -> None:
        await session.execute(_INSERT, {"kind": ORDERED, "owner": self.owner, "number": self.number, "seen": 0})
        if self.number % 7 == 3 and self.context.attempt == 1:
            raise ValueError("the first attempt fails")


class Member(Job):
    name = "crash.mixed.Member"
    max_tries = 100
    backoff = 0

    owner: int
    number: int

    async def handle(self, session: AsyncSession) -> None:
        await session.execute(_INSERT, {"kind": MEMBER, "owner": self.owner, "number": self.number, "seen": 0})


class End(Job):
    """Counts the members that had their effect before it."""

    name = "crash.mixed.End"
    max_tries = 100
    backoff = 0

    owner: int

    async def handle(self, session: AsyncSession) -> None:
        members = text("SELECT COUNT(*) FROM effects WHERE kind = 'member' AND owner = :owner")
        seen = await session.scalar(members, {"owner": self.owner})
        await session.execute(_INSERT, {"kind": END, "owner": self.owner, "number": 0, "seen": seen})


def create_effects(connection: Connection) -> None:
    counter = (
        "INTEGER PRIMARY KEY AUTOINCREMENT"
        if connection.dialect.name == "sqlite"
        else "BIGINT PRIMARY KEY AUTO_INCREMENT"
    )
    connection.execute(
        text(
            f"CREATE TABLE effects (seq {counter}, kind VARCHAR(10) NOT NULL, owner INTEGER NOT NULL, "
            "number INTEGER NOT NULL, seen INTEGER NOT NULL)"
        )
    )


def effects(connection: Connection) -> Sequence[tuple[str, int, int, int]]:
    """In the order in which they were written."""
    rows = connection.execute(text("SELECT kind, owner, number, seen FROM effects ORDER BY seq"))
    return [(row.kind, row.owner, row.number, row.seen) for row in rows]


def check_effects(
    found: Sequence[tuple[str, int, int, int]], *, plain: int, keys: int, batches: int, each: int
) -> None:
    """Each effect is there once, those of a key in their order, and the end of a batch after all of its members.
    ``each`` is how many jobs a key and a batch have."""
    happened = Counter((kind, owner, number) for kind, owner, number, _ in found)
    twice = [effect for effect, times in happened.items() if times > 1]
    assert not twice, f"more than once: {twice}"
    expected = {(PLAIN, 0, number) for number in range(plain)}
    expected |= {(ORDERED, key, number) for key in range(keys) for number in range(each)}
    expected |= {(MEMBER, batch, number) for batch in range(batches) for number in range(each)}
    expected |= {(END, batch, 0) for batch in range(batches)}
    assert set(happened) == expected, f"lost: {expected - set(happened)}, phantom: {set(happened) - expected}"
    for key in range(keys):
        numbers = [number for kind, owner, number, _ in found if (kind, owner) == (ORDERED, key)]
        assert numbers == list(range(each)), f"key {key} was not applied in order: {numbers}"
    assert {seen for kind, _, _, seen in found if kind == END} == {each}, "a batch ended before its members"
