"""What schedules owe to a worker, an application and an operator: the values, and the contract of a store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from outbox.ids import JobId
from outbox.policies.schedule import Definition, JobTemplate


@dataclass(frozen=True, slots=True)
class Declared:
    """A schedule that the code of this process declares."""

    name: str
    definition: Definition
    template: Callable[[], JobTemplate]
    """Makes the job of a tick, with the defaults of its fields at that time."""

    @property
    def hash(self) -> str:
        return self.definition.hash(self.name)


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """A schedule as it is stored. Times are aware, in UTC, from the store's clock."""

    name: str
    definition: Definition
    declaration: str | None
    """The hash of what code declares; None if it was added at run time."""
    next_at: datetime | None
    """When it ticks next; None while it is paused, and when it never does again."""
    last_tick: datetime | None
    """The last tick that became a job."""
    paused_at: datetime | None
    now: datetime


class DueSchedule(NamedTuple):
    name: str
    seconds: float
    """Until its next tick; 0 or less when that is due."""


Templates = Mapping[str, Callable[[], JobTemplate]]
"""How to make the jobs of declared schedules, by name."""


class ScheduleStore(Protocol):
    async def next_due(self, known: Collection[str]) -> list[DueSchedule]:
        """The next 100 schedules that were added at run time, or whose declaration is ``known`` by its hash: one
        statement, taking no lock."""

    async def tick(self, name: str, templates: Templates) -> bool:
        """Insert the jobs of a schedule that is due and move it on, in one transaction. False where another worker is
        doing it."""

    async def sync(self, declared: Sequence[Declared]) -> list[str]:
        """Store what was declared, unless a newer release of the application has declared it otherwise. Returns the
        names that belong to schedules that were added at run time: they stay as they are."""

    async def put(self, name: str, definition: Definition) -> bool:
        """Add a schedule, or change it; whether it is new.

        Raises:
            InvalidOption: code declares a schedule of this name.
        """

    async def remove(self, name: str) -> bool:
        """Remove a schedule; its jobs stay. False where there is none."""

    async def pause(self, name: str) -> bool:
        """Let a schedule tick no more; False where there is none, or it was paused already."""

    async def resume(self, name: str) -> bool:
        """Let a schedule tick again, from now on; False where there is none, or it was not paused."""

    async def get(self, name: str) -> StoredSchedule | None: ...

    async def list(self) -> list[StoredSchedule]:
        """All of them, by name."""

    async def run(self, name: str, templates: Templates) -> JobId | None:
        """Insert a job of the schedule now; None where there is no such schedule."""

    async def backfill(self, name: str, ticks: Sequence[datetime], templates: Templates) -> Sequence[datetime]:
        """Insert the jobs of those past ticks that had none, in one transaction; return them."""
