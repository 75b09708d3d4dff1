"""What an operator asks of live jobs and queues, and the orders that remove or hold them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import as_job_id, moment, number, text, unpack_body
from outbox.drivers.redis.keys import ENDED, key, queue_keys, zset_keys
from outbox.drivers.redis.script import Call, Script, command
from outbox.drivers.values import JobState, QueueCounts, StoredJob
from outbox.ids import JobId
from outbox.options import PRIORITIES

_SHOW, _COUNT = Script("show", returns=list), Script("count", returns=list)
_CANCEL, _CLEAR = Script("cancel", "common/ended", returns=list), Script("clear", "common/ended", returns=list)

CHUNK = 1_000
"""Jobs per script: enough to be quick, few enough that other commands do not wait long for the server."""

Order = Callable[[str, Sequence[bytes]], Call]
"""A script for these jobs of a queue, which returns those that it found."""

_MATCHES = 20
_SCANS = 100
ROW = 6
# Where the error begins in what `held` and `tries` have of a job: see common/base.lua.
_HOLD, _TRIES = 23, 21


async def get(store: Store, job_id: JobId) -> StoredJob | None:
    queues = await store.queues()
    answers = await store.do_all([_SHOW(queue_keys(queue), 1, job_id.bytes) for queue in queues])
    for queue, answer in zip(queues, answers, strict=True):
        for job in _stored_jobs(queue, answer):
            return job
    return None


async def list_jobs(store: Store, queue: str | None, limit: int) -> list[StoredJob]:
    """By queue, and in it in the order in which they would be claimed."""
    found: list[StoredJob] = []
    for names in _chunks(await store.queues() if queue is None else [queue]):
        if len(found) < limit:
            answers = await store.do_all([_SHOW(queue_keys(name), limit - len(found)) for name in names])
            found += [job for name, answer in zip(names, answers, strict=True) for job in _stored_jobs(name, answer)]
    return found[:limit]


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Ever more of them: the first few often have as many jobs as are wanted, and most queues are empty."""
    start, size = 0, 1
    while start < len(names):
        yield names[start : start + size]
        start, size = start + size, size * 4


def _stored_jobs(queue: str, answer: Sequence[bytes]) -> list[StoredJob]:
    now = moment(answer[0])
    rows = [Row(*answer[start : start + ROW]) for start in range(1, len(answer), ROW)]
    return stored_jobs(queue, now, rows)


def stored_jobs(queue: str, now: datetime, rows: Sequence[Row]) -> list[StoredJob]:
    """One without an id that a command could name is left out."""
    return [_stored_job(queue, job_id, now, row) for row in rows if (job_id := as_job_id(row.job_id)) is not None]


class Row(NamedTuple):
    """A live job as `show.lua` returns it."""

    job_id: bytes
    priority: bytes
    available_at: bytes
    body: bytes
    hold: bytes
    tries: bytes


def _stored_job(queue: str, job_id: JobId, now: datetime, row: Row) -> StoredJob:
    body = unpack_body(row.body)
    available_at = moment(row.available_at)
    failed_at, _, error = text(row.hold[_HOLD:] or row.tries[_TRIES:]).partition("\n")
    state = JobState.RETRYING if failed_at else JobState.DELAYED
    if available_at <= now:
        state = JobState.READY
    elif row.hold:
        state = JobState.RESERVED
    return StoredJob(
        id=job_id,
        queue=queue,
        name=body.name,
        priority=int(row.priority),
        payload=body.payload,
        headers=body.headers,
        attempts=number(row.hold[1:6] or row.tries[:5]),
        state=state,
        available_at=available_at,
        reserved_until=available_at if row.hold else None,
        created_at=moment(body.created_at),
        last_error=error if failed_at else None,
        last_error_at=moment(failed_at) if failed_at else None,
    )


async def find(store: Store, digits: str) -> list[JobId]:
    return await find_ids(store, digits, [key for queue in await store.queues() for key in zset_keys(queue)])


async def find_ids(store: Store, digits: str, zsets: Iterable[str]) -> list[JobId]:
    """Ids in these zsets that begin or end with the digits. It reads all of them, a thousand at a time."""
    found = set()
    async for member in _members(store, zsets):
        digits_of_member = member.hex()
        if as_job_id(member) is None:
            continue
        if digits_of_member.startswith(digits) or digits_of_member.endswith(digits):
            found.add(member)
    return [JobId(bytes=member) for member in sorted(found)[:_MATCHES]]


async def _members(store: Store, zsets: Iterable[str]) -> AsyncIterator[bytes]:
    """A page of each zset in one round trip, a hundred zsets at a time."""
    left: list[tuple[str, int]] = [(zset, 0) for zset in zsets]
    while left:
        asked, left = left[:_SCANS], left[_SCANS:]
        pages = await store.do_all([command("ZSCAN", zset, cursor, "COUNT", CHUNK) for zset, cursor in asked])
        for (zset, _), (cursor, page) in zip(asked, pages, strict=True):
            for member, _ in page:
                yield member
            if int(cursor) != 0:
                left.append((zset, int(cursor)))


async def counts(store: Store) -> list[QueueCounts]:
    """One script per queue, so that a job that moves meanwhile is counted in one place, not in two or none."""
    queues = await store.queues()
    answers = await store.do_all([_COUNT(queue_keys(queue)) for queue in queues])
    return [_queue_counts(queue, *answer) for queue, answer in zip(queues, answers, strict=True) if _worth(*answer)]


def _worth(ready: int, delayed: int, reserved: int, failed: int, _oldest: int, paused: int, retrying: int) -> bool:
    return any((ready, delayed, reserved, failed, paused, retrying))


def _queue_counts(
    queue: str, ready: int, delayed: int, reserved: int, failed: int, oldest: int, paused: int, retrying: int
) -> QueueCounts:
    return QueueCounts(
        queue=queue,
        ready=ready,
        delayed=delayed,
        reserved=reserved,
        failed=failed,
        oldest=oldest / 1_000_000 if oldest >= 0 else None,
        paused=bool(paused),
        retrying=retrying,
    )


def with_failed(counts: Sequence[QueueCounts], failed: Mapping[str, int]) -> list[QueueCounts]:
    """The same with failed jobs added that are kept elsewhere."""
    by_queue = {count.queue: count for count in counts}
    for queue, amount in failed.items():
        known = by_queue.get(queue) or _queue_counts(queue, 0, 0, 0, 0, -1, 0, 0)
        by_queue[queue] = replace(known, failed=known.failed + amount)
    return [by_queue[queue] for queue in sorted(by_queue)]


async def apply(store: Store, job_ids: Sequence[JobId], order: Order) -> list[JobId]:
    """Give an order to all queues. Returns the jobs that one of them had."""
    queues, unique = await store.queues(), list(dict.fromkeys(job_ids))
    done: set[bytes] = set()
    for start in range(0, len(unique), CHUNK):
        ids = [job_id.bytes for job_id in unique[start : start + CHUNK]]
        for found in await store.do_all([order(queue, ids) for queue in queues]):
            done.update(found)
    return [job_id for job_id in unique if job_id.bytes in done]


async def cancel(store: Store, job_ids: Sequence[JobId]) -> list[JobId]:
    return await apply(store, job_ids, lambda queue, ids: _CANCEL([*queue_keys(queue), key(queue, ENDED)], *ids))


async def clear(store: Store, queue: str) -> int:
    """Walks each priority once in the order of its times, in scripts that are short, so that it ends however fast jobs
    come in."""
    removed = 0
    for priority in PRIORITIES:
        place: tuple[bytes | str, int] | None = ("-inf", 0)
        while place is not None:
            count, *rest = await store.do(_CLEAR([*queue_keys(queue), key(queue, ENDED)], priority, *place, CHUNK))
            removed += count
            place = (rest[0], rest[1]) if rest else None
    return removed


async def now(store: Store) -> datetime:
    seconds, micros = await store.do(command("TIME"))
    return moment(int(seconds) * 1_000_000 + int(micros))
