"""The failed jobs in Redis: read them, put them back, or remove them for good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from outbox.drivers.filters import ANY_FAILED, HOURS_OF_A_GROUP, FailedFilter, FailedGroup
from outbox.drivers.redis.connection.store import Store
from outbox.drivers.redis.encoding import as_job_id, microseconds, moment, number, score, text, unpack_body
from outbox.drivers.redis.jobs.settle import load_failure
from outbox.drivers.redis.keys import FAILED, FAILURES, key, queue_keys
from outbox.drivers.redis.operations import inspection
from outbox.drivers.redis.operations.failed_filters import Groups, HourlyCounts, passing
from outbox.drivers.redis.script import Call, Script, command
from outbox.drivers.values import FailedJob, HealthIssue
from outbox.envelope import policies_in
from outbox.errors import JobNotFound
from outbox.ids import JobId

_RETRY, _FORGET = Script("retry", returns=list), Script("forget", returns=list)
_EVER = "+inf"
_HOUR = 3_600.0


class Place(NamedTuple):
    """Where a failed job is among all of them; the latest failure is the greatest."""

    failed_at: int
    job_id: bytes
    queue: str


class FailedJobs:
    """`FailedJobStore`, and what `RedisDriver` asks of wherever failed jobs are kept."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def arrived(self) -> None:
        """Jobs have failed, or may have. Never waits."""

    async def check(self) -> None:
        """As `Driver.check`, of another store that is needed for the failed jobs."""

    async def health_issues(self) -> list[HealthIssue]:
        return []

    async def counts(self) -> dict[str, int]:
        """Failed jobs by queue, beside those in Redis."""
        return {}

    async def close(self) -> None:
        """Give back every resource."""

    async def get(self, job_id: JobId) -> FailedJob | None:
        queues = await self._store.queues()
        found = await self._read([Place(0, job_id.bytes, queue) for queue in queues])
        return found[0] if found else None

    async def find(self, digits: str, *, nearby: bool = False) -> list[JobId]:  # noqa: ARG002 - it looks at all
        return await inspection.find_ids(
            self._store, digits, [key(queue, FAILED) for queue in await self._store.queues()]
        )

    async def page(
        self,
        queue: str | None = None,
        limit: int = 100,
        before: JobId | None = None,
        matching: FailedFilter = ANY_FAILED,
    ) -> list[FailedJob]:
        queues = await self._store.queues()
        last = None if before is None else await self._place(queues, before)
        wanted = queues if queue is None else [queue]
        if matching.is_any:
            return await self._read(await self._latest_of(wanted, limit, last))
        found: list[FailedJob] = []
        async for jobs in self._from_latest(wanted, await self._since(matching), last):
            found += passing(jobs, matching)
            if len(found) >= limit:
                break
        return found[:limit]

    async def _latest_of(self, queues: Sequence[str], limit: int, last: Place | None) -> list[Place]:
        return sorted(await self._latest(queues, limit, last), reverse=True)[:limit]

    async def _since(self, matching: FailedFilter) -> int:
        """The time from which on failures match."""
        return 0 if matching.since is None else await self._horizon(matching.since)

    async def groups(
        self, queue: str | None = None, limit: int = 100, matching: FailedFilter = ANY_FAILED
    ) -> list[FailedGroup]:
        groups = Groups()
        wanted = await self._store.queues() if queue is None else [queue]
        async for jobs in self._from_latest(wanted, await self._since(matching)):
            groups.add(passing(jobs, matching))
        return groups.largest(limit)

    async def hours(self, groups: Sequence[FailedGroup]) -> list[list[int]]:
        counts = HourlyCounts(groups, await inspection.now(self._store))
        since = await self._horizon(HOURS_OF_A_GROUP * _HOUR)
        async for jobs in self._from_latest(await self._store.queues(), since):
            counts.add(jobs)
        return counts.found

    async def _from_latest(
        self, queues: Sequence[str], bottom: int, last: Place | None = None
    ) -> AsyncIterator[list[FailedJob]]:
        """The failed jobs of these queues, the latest first, as far as they failed at the time ``bottom`` or later.
        ``last`` goes on after a job."""
        while True:
            places = await self._latest_of(queues, inspection.CHUNK, last)
            yield await self._read([place for place in places if place.failed_at >= bottom])
            if len(places) < inspection.CHUNK or places[-1].failed_at < bottom:
                return
            last = places[-1]

    async def list_oldest(self, limit: int) -> list[FailedJob]:
        """Up to so many, from each queue those that failed first."""
        queues = await self._store.queues()
        calls = [command("ZRANGE", key(queue, FAILED), 0, limit - 1, "WITHSCORES") for queue in queues]
        answers = await self._store.do_all(calls)
        places = [place for queue, answer in zip(queues, answers, strict=True) for place in _places(queue, answer)]
        return await self._read(places[:limit])

    async def present(self, places: Sequence[Place]) -> set[JobId]:
        """Those that failed exactly then and are still here."""
        calls = [command("ZSCORE", key(place.queue, FAILED), place.job_id) for place in places]
        scores = await self._store.do_all(calls)
        return {
            JobId(bytes=place.job_id)
            for place, score in zip(places, scores, strict=True)
            if score is not None and int(score) == place.failed_at
        }

    async def forget_exactly(self, places: Sequence[Place]) -> None:
        """Remove these failures, and no later ones of the same jobs."""
        await self._store.do_all([forgetting(place.queue, [place.job_id], place.failed_at) for place in places])

    async def _place(self, queues: Sequence[str], job_id: JobId) -> Place:
        scores = await self._store.do_all([command("ZSCORE", key(queue, FAILED), job_id.bytes) for queue in queues])
        for queue, failed_at in zip(queues, scores, strict=True):
            if failed_at is not None:
                return Place(int(failed_at), job_id.bytes, queue)
        raise JobNotFound(f"the failed job {job_id} was removed meanwhile: begin again with the first page")

    async def _latest(self, queues: Sequence[str], limit: int, before: Place | None) -> list[Place]:
        """Failures of one moment, those of one settlement, follow each other by id."""
        bound = _EVER if before is None else f"({before.failed_at}"
        asked = [(queue, _range(queue, bound, "-inf", limit)) for queue in queues]
        if before is not None:
            moment = str(before.failed_at)
            asked += [(queue, _range(queue, moment, moment, -1)) for queue in queues]
        answers = await self._store.do_all([call for _, call in asked])
        places = [place for (queue, _), answer in zip(asked, answers, strict=True) for place in _places(queue, answer)]
        return [place for place in places if before is None or place[:2] < before[:2]]

    async def _read(self, places: Sequence[Place]) -> list[FailedJob]:
        """The jobs there; one that was removed meanwhile is left out."""
        calls = []
        for place in places:
            calls.append(command("HGET", key(place.queue, FAILURES), place.job_id))
            calls.append(command("ZSCORE", key(place.queue, FAILED), place.job_id))
        answers = await self._store.do_all(calls)
        return [
            _failed_job(job_id, place, value, float(score))
            for place, value, score in zip(places, answers[::2], answers[1::2], strict=True)
            if value is not None and score is not None and (job_id := as_job_id(place.job_id)) is not None
        ]

    async def retry(self, job_ids: Sequence[JobId]) -> list[JobId]:
        """Redis takes every payload, so none is refused; a broken one fails again, with the reason."""
        return await inspection.apply(self._store, job_ids, lambda queue, ids: _RETRY(queue_keys(queue), _EVER, *ids))

    async def forget(self, job_ids: Sequence[JobId]) -> list[JobId]:
        return await inspection.apply(self._store, job_ids, lambda queue, ids: forgetting(queue, ids, _EVER))

    async def unretryable(
        self,
        queue: str | None = None,  # noqa: ARG002 - see retry
        limit: int = 100,  # noqa: ARG002
        matching: FailedFilter = ANY_FAILED,  # noqa: ARG002
    ) -> list[JobId]:
        return []

    async def retry_all(self, queue: str | None = None, matching: FailedFilter = ANY_FAILED) -> int:
        """Those that had failed when this began, so that a job that fails again at once is not put back again."""
        horizon = await self._horizon(0.0)
        return await self._sweep(queue, horizon, matching, lambda name, ids: _RETRY(queue_keys(name), horizon, *ids))

    async def flush(
        self, queue: str | None = None, older_than: float | None = None, matching: FailedFilter = ANY_FAILED
    ) -> int:
        """By the server's clock, as it was when this began."""
        horizon = await self._horizon(older_than or 0.0)
        return await self._sweep(queue, horizon, matching, lambda name, ids: forgetting(name, ids, horizon))

    async def _horizon(self, age: float) -> int:
        return score(await inspection.now(self._store)) - microseconds(age)

    async def _sweep(self, queue: str | None, horizon: int, matching: FailedFilter, order: inspection.Order) -> int:
        """A chunk of each queue at a time, with as many round trips as the fullest queue has chunks."""
        done = 0
        bottom = await self._since(matching) if matching.since is not None else "-inf"
        passed_over = dict.fromkeys(await self._store.queues() if queue is None else [queue], 0)
        while passed_over:
            spans = [_span(name, bottom, horizon, skip) for name, skip in passed_over.items()]
            found = await self._store.do_all(spans)
            chunks = {name: ids for name, ids in zip(passed_over, found, strict=True) if ids}
            chosen = await self._passing(chunks, matching)
            removed = await self._store.do_all([order(name, ids) for name, ids in chosen.items()])
            gone = dict(zip(chosen, map(set, removed), strict=True))
            done += sum(map(len, gone.values()))
            left = {name: set(ids) - gone.get(name, set()) for name, ids in chunks.items()}
            kept = await self._kept({name: ids for name, ids in left.items() if ids}, horizon)
            passed_over = {name: passed_over[name] + kept.get(name, 0) for name in chunks}
        return done

    async def _passing(
        self, chunks: Mapping[str, Sequence[bytes]], matching: FailedFilter
    ) -> Mapping[str, Sequence[bytes]]:
        if matching.is_any:
            return chunks
        places = [Place(0, job_id, name) for name, ids in chunks.items() for job_id in ids]
        chosen: dict[str, list[bytes]] = {}
        for job in passing(await self._read(places), matching):
            chosen.setdefault(job.queue, []).append(job.id.bytes)
        return chosen

    async def _kept(self, left: Mapping[str, Collection[bytes]], horizon: int) -> dict[str, int]:
        """How many of these an order left where they are. The others were removed by another caller."""
        scores = await self._store.do_all([command("ZMSCORE", key(name, FAILED), *ids) for name, ids in left.items()])
        return {
            name: sum(score is not None and float(score) <= horizon for score in found)
            for name, found in zip(left, scores, strict=True)
        }


def _span(queue: str, bottom: int | str, horizon: int, skip: int) -> Call:
    return command("ZRANGE", key(queue, FAILED), bottom, horizon, "BYSCORE", "LIMIT", skip, inspection.CHUNK)


def _places(queue: str, answer: Sequence[bytes]) -> list[Place]:
    """Out of what ZRANGE … WITHSCORES returns."""
    return [Place(int(float(score)), job_id, queue) for job_id, score in zip(answer[::2], answer[1::2], strict=True)]


def _range(queue: str, top: str, bottom: str, limit: int) -> Call:
    return command("ZRANGE", key(queue, FAILED), top, bottom, "BYSCORE", "REV", "LIMIT", 0, limit, "WITHSCORES")


def forgetting(queue: str, ids: Iterable[bytes], latest: int | str) -> Call:
    """Remove these failed jobs of a queue, as far as they failed at this time or before."""
    return _FORGET(queue_keys(queue), *(word for job_id in ids for word in (job_id, latest)))


def _failed_job(job_id: JobId, place: Place, value: bytes, failed_at: float) -> FailedJob:
    head, _, rest = value.partition(b"\n")
    connection, _, rest = rest.partition(b"\n")
    exception, _, job = rest.partition(b"\n")
    body = unpack_body(job)
    return FailedJob(
        id=job_id,
        connection=text(connection),
        queue=place.queue,
        name=body.name,
        priority=number(head[:1], 5),
        payload=body.payload,
        headers=body.headers,
        attempts=number(head[1:6]),
        failure=load_failure(text(exception)),
        failed_at=moment(failed_at),
        policies=policies_in(body.headers),
    )
