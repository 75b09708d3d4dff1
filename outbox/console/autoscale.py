"""``autoscale``: how many worker processes would clear a queue in time, for a script or a scaler."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import click

from outbox.console.command import Finite, looking_at_connection
from outbox.console.command import queue as queue_name
from outbox.console.formatting import counted
from outbox.console.output import Output
from outbox.drivers.base import Driver
from outbox.drivers.metrics import MetricPoint, clear_seconds
from outbox.drivers.values import SILENT_SECONDS

_SINCE = 900.0
"""Seconds of the past whose runs make the mean."""


@dataclass(frozen=True, slots=True)
class Load:
    """Of one queue. ``mean_run`` is seconds; ``slots`` are those of the ``workers`` that drain the queue now."""

    ready: int
    reserved: int
    mean_run: float | None
    slots: int
    workers: int

    @property
    def clear_seconds(self) -> float | None:
        """None where it is not known, or never."""
        return clear_seconds(self.ready, self.mean_run, self.slots)

    def wanted(self, within: float, concurrency: int, least: int, most: int) -> int:
        """How many processes of ``concurrency`` slots clear it ``within`` seconds: enough for what runs, one for any
        job at all, and as many as there are where no run is known."""
        if not self.ready and not self.reserved:
            return least
        needed = max(1, math.ceil(self.reserved / concurrency))
        if self.ready and self.mean_run is None:
            needed = max(needed, self.workers)
        elif self.mean_run is not None:
            needed = max(needed, math.ceil(self.ready * self.mean_run / within / concurrency))
        return max(least, min(needed, most))


@click.command()
@click.argument("queue", type=queue_name)
@click.option("--within", type=Finite(min=1), default=60.0, metavar="SECONDS", help="Time to clear it. Default: 60.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=20, help="Slots of one process. Default: 20.")
@click.option("--min", "least", type=click.IntRange(0), default=0, help="Processes at least. Default: 0.")
@click.option("--max", "most", type=click.IntRange(1), default=100, help="Processes at most. Default: 100.")
@looking_at_connection
async def autoscale(
    driver: Driver, output: Output, queue: str, within: float, concurrency: int, least: int, most: int
) -> None:
    """Print how many worker processes clear QUEUE in time.

    The time to clear is the number of ready jobs, times their mean run in the last 15 minutes, over the slots.
    """
    if least > most:
        raise click.UsageError(f"--min {least} is over --max {most}")
    load = await read_load(driver, queue)
    wanted = load.wanted(within, concurrency, least, most)
    if output.as_json:
        facts = {**asdict(load), "clear_seconds": load.clear_seconds, "wanted": wanted}
        output.document({"connection": driver.name, "queue": queue, **facts})
    else:
        output.print(f"{wanted}  {_reason(load)}")


async def read_load(driver: Driver, queue: str) -> Load:
    counts = next((each for each in await driver.queues.counts() if each.queue == queue), None)
    alive = [each for each in await driver.workers.all() if each.seen <= SILENT_SECONDS]
    drains = [each for each in alive if queue in each.queues.split(",")]
    points = [] if driver.metrics is None else await driver.metrics.points(_SINCE, queue=queue)
    paused = counts is None or counts.paused
    return Load(
        # Of a paused queue, nothing can be claimed.
        ready=0 if counts is None or paused else counts.ready,
        reserved=0 if counts is None else counts.reserved,
        mean_run=_mean_run(points),
        slots=sum(each.concurrency for each in drains),
        workers=len(drains),
    )


def _mean_run(points: list[MetricPoint]) -> float | None:
    runs = sum(point.run.count for point in points)
    return sum(point.run.total for point in points) / runs if runs else None


def _reason(load: Load) -> str:
    run = "no run is known" if load.mean_run is None else f"{load.mean_run:.3g} s each"
    parts = [f"{counted(load.ready, 'job')} ready", run, f"{counted(load.slots, 'slot')} now"]
    if load.clear_seconds is not None:
        parts.append(f"cleared in {load.clear_seconds:.3g} s")
    return ", ".join(parts)
