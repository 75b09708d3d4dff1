"""What a store is loaded with while the cost of a claim is watched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from benchmarks.filling import Fill, fill_failed
from benchmarks.flat.cost import Cost
from benchmarks.flat.ground import Ground, ground
from benchmarks.stores import Store

_LATER = 86_400.0


@dataclass(frozen=True, slots=True)
class Load:
    """Something that grows, level by level. A claim at the last level should cost what it costs at the first."""

    name: str
    title: str
    axis: str
    """What a level counts."""
    put: Callable[[Ground, int, int], Awaitable[None]]
    """Brings the ground from one level to the next."""
    full: tuple[int, ...]
    quick: tuple[int, ...]
    """Smaller levels, which show the same in seconds."""
    begin: Callable[[Ground, tuple[int, ...]], Awaitable[None]] | None = None
    """What comes before the first level."""

    async def costs(self, store: Store, levels: tuple[int, ...], *, counted: bool = False) -> list[tuple[int, Cost]]:
        """Of a claim at each level. Where only rows are to be ``counted``, the server is not waited for until it has
        removed what was deleted before; and it keeps thinking that the table is empty, as it may after a table has
        grown fast: a plan that depends on what it thinks is found out every time, and not now and then."""
        costs = []
        async with ground(store, counted=counted) as loaded:
            if self.begin is not None:
                await self.begin(loaded, levels)
            before = 0
            for level in levels:
                await self.put(loaded, before, level)
                costs.append((level, await loaded.cost()))
                before = level
        return costs


async def _ready(ground: Ground, before: int, after: int) -> None:
    await ground.put(Fill(after - before))


async def _delayed(ground: Ground, before: int, after: int) -> None:
    """In front of the others in every way: older, and with the first priority."""
    await ground.put(Fill(after - before, priority=0, delay=_LATER))


async def _held(ground: Ground, before: int, after: int) -> None:
    await ground.hold(after - before)


async def _failed(ground: Ground, before: int, after: int) -> None:
    fill_failed(ground.store, after - before, first=before)


async def _stock_and_snapshot(ground: Ground, levels: tuple[int, ...]) -> None:
    await ground.stock(levels[-1] + len(levels) * ground.claimed_per_cost)
    await ground.keep_snapshot()


async def _snapshot(ground: Ground, _: tuple[int, ...]) -> None:
    await ground.keep_snapshot()


async def _passed(ground: Ground, before: int, after: int) -> None:
    await ground.pass_through(after - before)


async def _in_a_fleet(ground: Ground, levels: tuple[int, ...]) -> None:
    await ground.enlist(levels[-1])


async def _claimers(ground: Ground, _: int, after: int) -> None:
    await ground.staff(after)


async def _queues_beside(ground: Ground, before: int, after: int) -> None:
    """Queues that somebody else drains, each with jobs."""
    await ground.put(Fill(100 * (after - before), queues=after))


async def _drain_200_queues(ground: Ground, _: tuple[int, ...]) -> None:
    """Together, in an order of preference."""
    ground.queues = tuple(f"q{number}" for number in range(200))
    ground.shape = Fill(0, queues=200)


async def _drain_two_queues(ground: Ground, _: tuple[int, ...]) -> None:
    ground.queues = ("q0", "q1")
    ground.shape = Fill(0, queues=2)


async def _ready_in_each(ground: Ground, before: int, after: int) -> None:
    queues = len(ground.queues)
    await ground.put(Fill(queues * (after - before), queues=queues))


async def _priorities(ground: Ground, _: int, after: int) -> None:
    ground.shape = replace(ground.shape, priorities=after)
    await ground.put(Fill(1_000 * after, priorities=after))


LOADS = (
    Load(
        "flat-backlog",
        "Ready jobs",
        "ready jobs",
        _ready,
        full=(1_000, 10_000, 100_000, 1_000_000, 3_000_000),
        quick=(1_000, 30_000),
    ),
    Load(
        "flat-delayed",
        "Delayed jobs, older and of the first priority",
        "delayed jobs",
        _delayed,
        full=(0, 10_000, 100_000, 1_000_000),
        quick=(0, 30_000),
    ),
    Load(
        "flat-held",
        "Long jobs held at the head",
        "jobs held",
        _held,
        full=(0, 500, 2_000, 5_000),
        quick=(0, 1_000),
    ),
    Load(
        "flat-failed",
        "Failed jobs",
        "failed jobs",
        _failed,
        full=(0, 10_000, 100_000),
        quick=(0, 10_000),
    ),
    Load(
        "flat-snapshot",
        "Jobs of a backlog gone through while a transaction stays open",
        "jobs gone through",
        _passed,
        full=(0, 50_000, 100_000, 200_000, 400_000, 700_000, 1_000_000),
        quick=(0, 10_000, 20_000),
        begin=_stock_and_snapshot,
    ),
    Load(
        "flat-snapshot-arriving",
        "Jobs gone through as they came while a transaction stays open",
        "jobs gone through",
        _passed,
        full=(0, 50_000, 100_000, 200_000),
        quick=(0, 10_000, 20_000),
        begin=_snapshot,
    ),
    Load(
        "flat-claimers",
        "Workers of a fleet that claim at once",
        "workers",
        _claimers,
        full=(1, 2, 4, 8, 16),
        quick=(1, 16),
        begin=_in_a_fleet,
    ),
    Load(
        "flat-queues",
        "Other queues with jobs",
        "queues",
        _queues_beside,
        full=(1, 20, 200),
        quick=(1, 200),
    ),
    Load(
        "flat-two-queues",
        "Jobs in each of two queues drained together",
        "jobs per queue",
        _ready_in_each,
        full=(1_000, 10_000, 100_000, 1_000_000),
        quick=(1_000, 30_000),
        begin=_drain_two_queues,
    ),
    Load(
        "flat-many-queues",
        "Jobs in each of 200 queues drained together",
        "jobs per queue",
        _ready_in_each,
        full=(10, 100, 1_000, 10_000),
        quick=(10, 200),
        begin=_drain_200_queues,
    ),
    Load(
        "flat-priorities",
        "Priorities in use",
        "priorities",
        _priorities,
        full=(1, 2, 5, 10),
        quick=(1, 10),
    ),
)
