"""Tells open pages when something has changed: one poller in a process, and only while a page is open.

A page names its topics. Every two seconds the poller reads a digest of each topic that an open page names. The pages of
a topic whose digest has changed are told once. They read what they show from `Live.readings`, which reads each thing
once for all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from outbox.errors import BackendUnavailable, InvalidOption, OutboxError
from outbox.web.parameters import parse_id
from outbox.web.readings import Readings
from outbox.web.stores import WebStores
from outbox.web.values import KeptJob, LiveJob

INTERVAL = 2.0
"""Seconds between two digests."""
MOST_PAGES = 200
"""Open pages of one process. A further one is refused, and works without events."""
_MOST_TOPICS = 5
_JOB = "job:"

_log = logging.getLogger("outbox.web")

Digest = Callable[[Readings], Awaitable[Hashable]]


async def _queues(readings: Readings) -> Hashable:
    answers = await readings.queues.all()
    rows = [(each.connection, replace(each.counts, oldest=None, age=None)) for each in answers.found]
    return tuple(rows), tuple(answers.errors)


async def _workers(readings: Readings) -> Hashable:
    answers = await readings.workers.all()
    rows = [
        (
            each.connection,
            status.id,
            each.is_silent,
            status.state,
            status.ordered,
            status.processed,
            status.failed,
            tuple(job.id for job in status.jobs),
        )
        for each in answers.found
        for status in (each.status,)
    ]
    return tuple(rows), tuple(answers.errors)


async def _jobs(readings: Readings) -> Hashable:
    return await _queues(readings), await _workers(readings)


async def _failures(readings: Readings) -> Hashable:
    queues = await readings.queues.all()
    latest = await readings.failed.latest()
    return latest, tuple((each.connection, each.counts.queue, each.counts.failed) for each in queues.found)


async def _schedules(readings: Readings) -> Hashable:
    answers = await readings.schedules.all()
    return tuple(
        (each.connection, each.stored.name, each.state, each.is_missed, each.stored.next_at, each.stored.last_tick)
        for each in answers.found
    )


async def _keys(readings: Readings) -> Hashable:
    blocked, limits = await readings.keys.blocked(), await readings.keys.limits()
    rows = [(connection, replace(limit, left=None, next_in=None)) for connection, limit in limits.found]
    paused = tuple(await readings.pauses.of_keys())
    return tuple((each.connection, each.job_id) for each in blocked.found.keys), tuple(rows), paused


async def _batches(readings: Readings) -> Hashable:
    return tuple((await readings.batches.all(_BATCHES)).found)


async def _operations(readings: Readings) -> Hashable:
    found = [await readings.operations.page(name, _BATCHES) for name in readings.connections]
    return tuple((each.operations, each.entries) for each in found)


async def _overview(readings: Readings) -> Hashable:
    return await _jobs(readings), await _failures(readings), await _schedules(readings)


_BATCHES = 50
_TOPICS: dict[str, Digest] = {
    "overview": _overview,
    "queues": _queues,
    "workers": _workers,
    "jobs": _jobs,
    "failures": _failures,
    "schedules": _schedules,
    "keys": _keys,
    "batches": _batches,
    "operations": _operations,
}


def check_topics(text: str) -> tuple[str, ...]:
    """
    Raises:
        InvalidOption: there is no such topic, or there are too many.
    """
    topics = tuple(dict.fromkeys(text.split(",")))
    if len(topics) > _MOST_TOPICS:
        raise InvalidOption(f"a page has at most {_MOST_TOPICS} topics")
    for topic in topics:
        if topic.startswith(_JOB):
            parse_id(topic.removeprefix(_JOB))
        elif topic not in _TOPICS:
            raise InvalidOption(f"there is no topic {topic[:40]!r}; there are: {', '.join(_TOPICS)}")
    return topics


async def _digest(readings: Readings, topic: str) -> Hashable:
    try:
        if not topic.startswith(_JOB):
            return await _TOPICS[topic](readings)
        found = await readings.jobs.get(parse_id(topic.removeprefix(_JOB)))
        if isinstance(found, LiveJob):
            return found.job.state, found.job.attempts, found.job.available_at, found.worker is None
        if isinstance(found, KeptJob):
            return found.job.id, found.job.finished_at
        return found.id, found.failed_at
    except OutboxError as error:
        # A page that is told shows the error.
        return type(error).__name__, str(error)


class _Page:
    """A page that is open."""

    def __init__(self, topics: Collection[str]) -> None:
        self.topics = frozenset(topics)
        self.changed = asyncio.Event()


class Live:
    def __init__(self, stores: WebStores, interval: float = INTERVAL) -> None:
        self.readings = Readings(stores, shared={})
        """For pages that were told of a change: what one of them has read is shared until the next change."""
        self.version = 0
        """Grows with each change that the poller has seen."""
        self.looked = 0
        """How often the poller has read the digests."""
        self._interval = interval
        self._pages: set[_Page] = set()
        self._digests: dict[str, Hashable] = {}
        self._poller: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()

    @property
    def is_polling(self) -> bool:
        return self._poller is not None and not self._poller.done()

    @asynccontextmanager
    async def open_page(self, topics: Collection[str], seen: int) -> AsyncIterator[asyncio.Event]:
        """The event is set when a topic of the page has changed. It is set soon where that may have been since
        ``seen``, the version when the page was made.

        Raises:
            BackendUnavailable: too many pages are open.
        """
        if len(self._pages) >= MOST_PAGES:
            raise BackendUnavailable(f"{MOST_PAGES} pages are open already: this one is not told of changes")
        page = _Page(topics)
        self._pages.add(page)
        if not self.is_polling:
            self._begin()
        if not self._digests.keys() >= page.topics:
            # It is told after their first digest: what changes before that is in what it reads then.
            self._look_now.set()
        elif seen != self.version:
            page.changed.set()
        try:
            yield page.changed
        finally:
            self._pages.discard(page)
            if not self._pages:
                await self._stop()

    def _begin(self) -> None:
        self._digests = {}
        self._look_now = asyncio.Event()
        self._poller = asyncio.create_task(self._poll())

    async def _stop(self) -> None:
        poller, self._poller = self._poller, None
        self._digests.clear()
        self.readings.forget()
        if poller is not None:
            # It waits, or asks a store in a task of its own: nothing that is under way is cancelled.
            poller.cancel()
            with suppress(asyncio.CancelledError):
                await poller

    async def _poll(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - the pages stay open, and the next look may succeed
                _log.exception("what is new could not be read; it is tried again")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._look_now.wait()

    async def _look(self) -> None:
        self._look_now.clear()
        self.readings.forget()
        topics = {topic for page in self._pages for topic in page.topics}
        found = {topic: await _digest(self.readings, topic) for topic in topics}
        self.looked += 1
        before, self._digests = self._digests, found
        new = found.keys() - before.keys()
        changed = {topic for topic in found.keys() & before.keys() if found[topic] != before[topic]}
        if changed:
            self.version += 1
        if new or changed:
            self.readings.forget()
        for page in self._pages:
            if page.topics & (new | changed):
                page.changed.set()
