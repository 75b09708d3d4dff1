"""Reports names and queues that no job has, and suggests similar ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from outbox.console.connections import Stores
from outbox.console.formatting import line
from outbox.drivers.filters import JobFilter

_EXAMINED = 500


def suggestion(typed: str, known: Iterable[str]) -> str:
    """``: did you mean …?`` if one of the ``known`` names is similar, otherwise an empty text."""
    names = sorted(set(known))
    same_class = [name for name in names if name.rpartition(".")[2].lower() == typed.rpartition(".")[2].lower()]
    close = same_class or difflib.get_close_matches(typed, names, n=1)
    return f": did you mean {line(close[0])}?" if close else ""


async def unknown_name(stores: Stores, name: str | None) -> str | None:
    """A message if no job, live or failed, has this name. None if one has.

    It examines the first live jobs and the largest groups of failed jobs of each connection.
    """
    if name is None:
        return None
    known: set[str] = set()
    for page in (await stores.ask(lambda driver: driver.jobs.page(JobFilter(), _EXAMINED))).values():
        known |= {job.name for job in page.jobs}
    for groups in (await stores.ask(lambda driver: driver.failed.groups(limit=_EXAMINED))).values():
        known |= {group.name for group in groups}
    return None if name in known else f"outbox: no job is named {line(name)}{suggestion(name, known)}"


async def unknown_queue(stores: Stores, queue: str | None) -> str | None:
    """A message if the queue has no job and no worker drains it, otherwise None."""
    if queue is None:
        return None
    known = {
        counts.queue for each in (await stores.ask(lambda driver: driver.queues.counts())).values() for counts in each
    }
    for workers in (await stores.ask(lambda driver: driver.workers.all())).values():
        known |= {name for worker in workers for name in worker.queues.split(",")}
    if queue in known:
        return None
    return f"outbox: no job is in a queue {queue}, and no worker drains it{suggestion(queue, known)}"
