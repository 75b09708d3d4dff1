"""Pages of live jobs for an operator: read in short scripts, a bounded number of jobs each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from outbox.drivers.filters import EXAMINED_PER_PAGE, JobFilter, JobPage, JobPlace
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import moment, score
from outbox.drivers.redis.keys import queue_keys
from outbox.drivers.redis.operations.inspection import CHUNK, ROW, Row, stored_jobs
from outbox.drivers.redis.script import Script
from outbox.drivers.values import StoredJob
from outbox.ids import JobId
from outbox.options import PRIORITIES

_PAGE = Script("page", returns=list)
_HEAD = 4


class _Part(NamedTuple):
    """What one script looked at: how many jobs, and which of them passed the filter."""

    looked_at: int
    last: tuple[bytes, bytes]
    """The score and the id of the last job that was looked at."""
    jobs: list[StoredJob]


async def page_of_jobs(store: Store, matching: JobFilter, limit: int, after: JobPlace | None) -> JobPage:
    queues = await store.queues() if matching.queue is None else [matching.queue]
    jobs: list[StoredJob] = []
    room = EXAMINED_PER_PAGE
    for queue, priority in _priorities(queues, after):
        begin = (b"", b"")
        if after is not None and (queue, priority) == (after.queue, after.priority):
            begin = (str(score(after.available_at)).encode(), after.id.bytes)
        while True:
            asked = min(CHUNK, room)
            part = await _look(store, queue, priority, begin, asked, limit - len(jobs), matching)
            jobs += part.jobs
            room -= part.looked_at
            if len(jobs) == limit or room == 0:
                return JobPage(jobs, JobPlace(queue, priority, moment(part.last[0]), JobId(bytes=part.last[1])))
            if part.looked_at < asked:
                break
            begin = part.last
    return JobPage(jobs, None)


def _priorities(queues: list[str], after: JobPlace | None) -> Iterator[tuple[str, int]]:
    for queue in queues:
        for priority in PRIORITIES:
            if after is None or (queue, priority) >= (after.queue, after.priority):
                yield queue, priority


async def _look(
    store: Store, queue: str, priority: int, begin: tuple[bytes, bytes], span: int, limit: int, matching: JobFilter
) -> _Part:
    state = "" if matching.state is None else matching.state.value
    call = _PAGE(queue_keys(queue), priority, *begin, span, limit, matching.name or "", state, matching.key or "")
    answer = await store.do(call)
    now = moment(answer[0])
    rows = [Row(*answer[start : start + ROW]) for start in range(_HEAD, len(answer), ROW)]
    return _Part(int(answer[1]), (answer[2], answer[3]), stored_jobs(queue, now, rows))
