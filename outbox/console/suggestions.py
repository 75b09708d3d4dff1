"""Names that an operator typed, and that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from outbox.console.connections import Stores
from outbox.console.formatting import line
from outbox.drivers.filters import JobFilter

_LOOKED_AT = 500


def suggestion(typed: str, known: Iterable[str]) -> str:
    """``: did you mean …?`` where one of the ``known`` names is close, and an empty text otherwise."""
    names = sorted(set(known))
    same_class = [name for name in names if name.rpartition(".")[2].lower() == typed.rpartition(".")[2].lower()]
    close = same_class or difflib.get_close_matches(typed, names, n=1)
    return f": did you mean {line(close[0])}?" if close else ""


async def unknown_name(stores: Stores, name: str | None) -> str | None:
    """What to say of a job's name under which there is no job, live or failed; None where there is one.

    It looks at the first live jobs and at the largest groups of failed ones of each connection.
    """
    if name is None:
        return None
    known: set[str] = set()
    for page in (await stores.ask(lambda driver: driver.page_of_jobs(JobFilter(), _LOOKED_AT))).values():
        known |= {job.name for job in page.jobs}
    for groups in (await stores.ask(lambda driver: driver.failed_groups(limit=_LOOKED_AT))).values():
        known |= {group.name for group in groups}
    return None if name in known else f"outbox: no job is named {line(name)}{suggestion(name, known)}"


async def unknown_queue(stores: Stores, queue: str | None) -> str | None:
    """The same of a queue in which there is no job, and that no worker drains."""
    if queue is None:
        return None
    known = {counts.queue for each in (await stores.ask(lambda driver: driver.counts())).values() for counts in each}
    for workers in (await stores.ask(lambda driver: driver.workers())).values():
        known |= {name for worker in workers for name in worker.queues.split(",")}
    if queue in known:
        return None
    return f"outbox: no job is in a queue {queue}, and no worker drains it{suggestion(queue, known)}"
