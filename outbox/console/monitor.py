"""``monitor``: queues and workers, live or once."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Group, RenderableType
from rich.text import Text

from outbox.console import json_views, live_view, tables
from outbox.console.command import Finite
from outbox.console.command import queue as queue_name
from outbox.console.connections import Stores, on_connections
from outbox.console.formatting import counted, line
from outbox.console.output import Output
from outbox.console.snapshot import Snapshot, Throughput
from outbox.errors import BackendUnavailable


@click.command()
@click.argument("queues", metavar="[QUEUE]...", type=queue_name, nargs=-1)
@click.option("--interval", type=Finite(0.1, 3600), default=2.0, show_default=True, help="Seconds.")
@click.option("--max", "longest", type=click.IntRange(min=0), help="Exit 1 if a queue has more ready jobs at the end.")
@click.option("--once", is_flag=True, help="Print one snapshot. Default without a terminal and with --json.")
@on_connections
async def monitor(
    stores: Stores, output: Output, queues: Sequence[str], interval: float, longest: int | None, once: bool
) -> int:
    """Watch queues and workers. q or Ctrl-C ends it."""
    watch = _Watch(stores, queues, longest)
    if once or output.as_json or not output.console.is_terminal:
        await watch.refresh()
    else:
        await live_view.show(output.console, watch.refresh, watch.view, interval)
    if output.as_json:
        output.document(watch.document())
    else:
        output.print(watch.view())
    return 1 if watch.long else 0


class _Watch:
    """The latest snapshot, and the throughput since earlier ones."""

    def __init__(self, stores: Stores, queues: Sequence[str], longest: int | None) -> None:
        self._stores = stores
        self._queues = queues
        self._longest = longest
        self._throughput = Throughput()
        self._snapshot: Snapshot | None = None
        self._error = ""

    async def refresh(self) -> None:
        """Take a snapshot. After the first one, an error is shown above the last one."""
        try:
            self._snapshot = await Snapshot.take(self._stores, self._queues)
        except BackendUnavailable as error:
            if self._snapshot is None:
                raise
            self._error = str(error)
            return
        self._throughput.add(self._snapshot)
        self._error = ""

    @property
    def long(self) -> tuple[tuple[str, str], ...]:
        return () if self._snapshot is None else self._snapshot.longer_than(self._longest)

    def document(self) -> json_views.Document:
        if self._snapshot is None:
            return {}
        values = {
            "taken_at": json_views.timestamp(self._snapshot.taken_at),
            "queues": [json_views.queue(*each) for each in self._snapshot.queues],
            "pauses": [json_views.pause(*each) for each in self._snapshot.pauses],
            "workers": [json_views.worker(*each) for each in self._snapshot.workers],
            "per_second": self._throughput.per_second,
            "max": self._longest,
            "longer_than_max": list(dict.fromkeys(queue for _, queue in self.long)),
        }
        return self._stores.document(**values)

    def view(self) -> RenderableType:
        snapshot = self._snapshot
        if snapshot is None:
            return Text("")
        rate = self._throughput.per_second
        workers = counted(len(snapshot.workers), "worker")
        head = f"{', '.join(self._stores.names)}  {snapshot.taken_at:%Y-%m-%d %H:%M:%S} UTC  {workers}"
        if rate is not None:
            head += f"  {rate:,.1f} jobs/s"
        parts: list[RenderableType] = [Text(head, style="bold")]
        parts += [Text(line(error), style="bold red") for error in (self._error, *snapshot.errors) if error]
        several = self._stores.several
        queues = tables.queues(snapshot.queues, self.long, several=several) if snapshot.queues else Text("No jobs.")
        parts += [Text(), queues]
        parts += [Text(text) for text in tables.pauses(snapshot.pauses, several=several)]
        if snapshot.workers:
            parts += [Text(), tables.workers(snapshot.workers, snapshot.taken_at, several=several)]
        return Group(*parts)
