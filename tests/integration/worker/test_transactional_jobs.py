"""Jobs whose handler gets a session: its writes, what it dispatches and the end of the job are one commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import outbox
import outbox.sync
from outbox import Job, JobState, dispatch
from outbox.errors import ConfigurationError, InvalidJob, SessionUnusable
from outbox.events import JobSettled, LeaseLost
from outbox.middleware import job_sessions
from outbox.settlement import Outcome
from tests.servers import sql
from tests.support.embedded_worker import Embedded, working
from tests.support.orders import async_engine, sync_engine

hooks: dict[str, Callable[[Job], Any]] = {}
"""What handlers call at their ``begin`` and at their ``end``, in a thread."""
engines: list[AsyncEngine] = []
runs: list[int] = []


@pytest.fixture(autouse=True)
def nothing_done() -> Iterator[None]:
    runs.clear()
    hooks.clear()
    engines.clear()
    yield
    outbox.configure()


@pytest.fixture
async def engine(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    outbox.configure(database_url=migrated_url)
    with sql.connection(migrated_url) as connection:
        connection.execute(text("CREATE TABLE effects (number INTEGER NOT NULL)"))
    engine = async_engine(migrated_url)
    engines.append(engine)
    yield engine
    await engine.dispose()
    await outbox.disconnect()


class Followed(Job):
    queue = "followed"
    number: int

    async def handle(self) -> None:
        """Stays in its queue."""


def hook(name: str, job: Job) -> None:
    if name in hooks:
        hooks[name](job)


class InSession(Job):
    """Writes an effect, and dispatches another job."""

    number: int = 1
    backoff = 0

    async def handle(self, session: AsyncSession) -> None:
        runs.append(self.context.attempt)
        await asyncio.to_thread(hook, "begin", self)
        await write(self.number, session)
        await asyncio.to_thread(hook, "end", self)


class InThread(Job):
    number: int = 1
    backoff = 0

    def handle(self, session: Session) -> None:
        assert threading.current_thread() is not threading.main_thread()
        runs.append(self.context.attempt)
        hook("begin", self)
        session.execute(INSERT, {"number": self.number})
        outbox.sync.dispatch(Followed(number=self.number), session=session)
        hook("end", self)


class OpensItsOwn(Job):
    """Completes itself in a transaction that it has begun."""

    number: int = 1
    backoff = 0

    async def handle(self) -> None:
        runs.append(self.context.attempt)
        await asyncio.to_thread(hook, "begin", self)
        async with AsyncSession(engines[0]) as session, session.begin():
            await write(self.number, session)
            await self.context.complete(session)
            await asyncio.to_thread(hook, "end", self)


class CompletesGivenSession(Job):
    """Asks for what the worker does anyway, and once more after a savepoint has undone it."""

    async def handle(self, session: AsyncSession) -> None:
        await write(1, session)
        savepoint = await session.begin_nested()
        await self.context.complete(session)
        await savepoint.rollback()
        await self.context.complete(session)
        await session.execute(INSERT, {"number": 2})


class CompletesGivenSessionInThread(Job):
    def handle(self, session: Session) -> None:
        session.execute(INSERT, {"number": 1})
        outbox.sync.dispatch(Followed(number=1), session=session)
        self.context.complete(session)
        session.execute(INSERT, {"number": 2})


class CompletesTwice(Job):
    async def handle(self) -> None:
        async with AsyncSession(engines[0]) as session, session.begin():
            await write(1, session)
            await self.context.complete(session)
            await session.execute(INSERT, {"number": 2})
            await self.context.complete(session)


INSERT = text("INSERT INTO effects (number) VALUES (:number)")


async def write(number: int, session: AsyncSession) -> None:
    await session.execute(INSERT, {"number": number})
    await dispatch(Followed(number=number), session=session)


async def effects(engine: AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        return list(await connection.scalars(text("SELECT number FROM effects ORDER BY number")))


async def followed() -> int:
    counts = {each.queue: each.ready for each in await outbox.counts()}
    return counts.get("followed", 0)


async def settled(worker: Embedded, count: int = 1) -> list[Outcome]:
    await worker.event(JobSettled, count)
    return [event.outcome for event in worker.of(JobSettled)]


async def left() -> list[outbox.StoredJob]:
    return list((await outbox.jobs(queue="default")).jobs)


every_kind = pytest.mark.parametrize("kind", [InSession, InThread, OpensItsOwn])


@every_kind
async def test_effects_follow_ups_and_the_end_are_one_commit(
    engine: AsyncEngine, migrated_url: str, kind: type[Any]
) -> None:
    for number in range(3):
        await dispatch(kind(number=number))
    async with working(migrated_url, queue=("default",)) as worker:
        assert await settled(worker, 3) == [Outcome.COMPLETED] * 3
    assert await effects(engine) == [0, 1, 2]
    assert await followed() == 3
    assert await left() == []


async def test_jobs_that_begin_at_once_in_threads_share_an_engine(
    engine: AsyncEngine, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker closes one: what others had would stay connected."""
    made: list[Engine] = []
    all_make_one = threading.Barrier(3)

    def create(*arguments: Any, **options: Any) -> Engine:
        with suppress(threading.BrokenBarrierError):
            all_make_one.wait(0.5)
        made.append(create_engine(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(job_sessions, "create_engine", create)
    for number in range(3):
        await dispatch(InThread(number=number))
    async with working(migrated_url, queue=("default",)) as worker:
        assert await settled(worker, 3) == [Outcome.COMPLETED] * 3
    assert len(made) == 1


@every_kind
async def test_what_a_failed_attempt_wrote_is_rolled_back(
    engine: AsyncEngine, migrated_url: str, kind: type[Any]
) -> None:
    def fail_once(job: Job) -> None:
        if job.context.attempt == 1:
            raise ValueError("the first attempt fails")

    hooks["end"] = fail_once
    await dispatch(kind(), max_tries=2)
    async with working(migrated_url, queue=("default",), sleep=0.05) as worker:
        assert await settled(worker, 2) == [Outcome.RETRIED, Outcome.COMPLETED]
    assert await effects(engine) == [1]
    assert await followed() == 1


@every_kind
async def test_a_job_that_another_worker_has_writes_nothing(
    engine: AsyncEngine, migrated_url: str, kind: type[Any]
) -> None:
    def take_over(_: Job) -> None:
        with sql.connection(migrated_url) as connection:
            connection.execute(text("UPDATE queue_jobs SET reserved_by = :token"), {"token": b"x" * 16})

    hooks["begin"] = take_over
    job_id = await dispatch(kind())
    async with working(migrated_url, queue=("default",)) as worker:
        lost = await worker.event(LeaseLost)
        assert lost.job_id == job_id
        assert worker.of(JobSettled) == []
    assert await effects(engine) == []
    assert await followed() == 0
    assert [(job.id, job.state) for job in await left()] == [(job_id, JobState.RESERVED)]


@pytest.mark.parametrize("kind", [CompletesGivenSession, CompletesGivenSessionInThread, CompletesTwice])
async def test_a_job_that_completes_itself_once_more_is_completed(
    engine: AsyncEngine, migrated_url: str, kind: type[Any]
) -> None:
    await dispatch(kind(), max_tries=1)
    async with working(migrated_url, queue=("default",)) as worker:
        assert await settled(worker) == [Outcome.COMPLETED]
        assert worker.of(LeaseLost) == []
    assert await effects(engine) == [1, 2]
    assert await followed() == 1
    assert await left() == []


@pytest.mark.parametrize("kind", [InSession, InThread])
@pytest.mark.parametrize("decision", ["release", "snooze", "fail", "delete"])
async def test_another_decision_than_to_complete_rolls_back(
    engine: AsyncEngine, migrated_url: str, kind: type[Any], decision: str
) -> None:
    def decide(job: Job) -> None:
        if decision in ("release", "snooze"):
            getattr(job.context, decision)(60)
        elif decision == "fail":
            job.context.fail("no")
        else:
            job.context.delete()

    hooks["end"] = decide
    await dispatch(kind(), max_tries=2)
    async with working(migrated_url, queue=("default",)) as worker:
        [outcome] = await settled(worker)
    assert outcome in (Outcome.RELEASED, Outcome.SNOOZED, Outcome.FAILED, Outcome.CANCELLED)
    assert await effects(engine) == []
    assert await followed() == 0


async def test_renewals_do_not_wait_for_a_handler_that_has_written(engine: AsyncEngine, migrated_url: str) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one lock for all writers")
    renewed = threading.Event()

    def wait(_: Job) -> None:
        def until() -> object:
            with sql.connection(migrated_url) as connection:
                return connection.scalar(text("SELECT reserved_until FROM queue_jobs WHERE queue = 'default'"))

        first = until()
        while until() == first:
            assert not renewed.wait(0.05)

    hooks["end"] = wait
    await dispatch(InSession())
    async with working(migrated_url, queue=("default",), lease=1) as worker:
        assert await settled(worker) == [Outcome.COMPLETED]
    assert await effects(engine) == [1]


class Opponent:
    """A transaction that the server lets win against the one of a job."""

    def __init__(self, url: str) -> None:
        self._engine = sync_engine(url)
        self._sqlite = self._engine.dialect.name == "sqlite"
        self._connection = self._engine.connect()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """It has changed more rows than the job, so that a deadlock rolls back the job."""
        if not self._sqlite:
            self._connection.execute(text("UPDATE pair SET value = value + 1 WHERE id = 1"))
            self._connection.execute(text("UPDATE pair SET value = value + 1 WHERE id > 2"))

    def meet(self) -> None:
        """Wait for the row of the job. On SQLite: write what the job has not seen in its snapshot."""
        self._thread = threading.Thread(target=self._write)
        self._thread.start()
        if self._sqlite:
            self._thread.join()

    def _write(self) -> None:
        self._connection.execute(text("UPDATE pair SET value = value + 1 WHERE id = 2"))
        self._connection.commit()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._connection.close()
        self._engine.dispose()


collisions = 0
opponents: list[Opponent] = []
LOOK = text("SELECT value FROM pair WHERE id = 2")
MINE, THEIRS = (text(f"UPDATE pair SET value = value + 1 WHERE id = {number}") for number in (2, 1))


def opponent(url: str) -> Opponent:
    opponents.append(Opponent(url))
    return opponents[-1]


class Collides(Job):
    url: str

    async def handle(self, session: AsyncSession) -> None:
        runs.append(self.context.attempt)
        if len(runs) <= collisions:
            other = opponent(self.url)
            await session.execute(LOOK)
            await asyncio.to_thread(other.begin)
            if session.get_bind().dialect.name != "sqlite":
                await session.execute(MINE)
            await asyncio.to_thread(other.meet)
            await session.execute(THEIRS)
        await session.execute(INSERT, {"number": 1})


class CollidesInThread(Job):
    url: str

    def handle(self, session: Session) -> None:
        runs.append(self.context.attempt)
        if len(runs) <= collisions:
            other = opponent(self.url)
            session.execute(LOOK)
            other.begin()
            if session.get_bind().dialect.name != "sqlite":
                session.execute(MINE)
            other.meet()
            session.execute(THEIRS)
        session.execute(INSERT, {"number": 1})


@pytest.fixture
def pair(engine: AsyncEngine, migrated_url: str) -> Iterator[None]:
    with sql.connection(migrated_url) as connection:
        connection.execute(text("CREATE TABLE pair (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO pair VALUES (:id, 0)"), [{"id": number} for number in range(1, 100)])
    yield
    while opponents:
        opponents.pop().close()


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("kind", [Collides, CollidesInThread])
async def test_a_conflict_runs_the_handler_again_in_the_same_attempt(
    engine: AsyncEngine, migrated_url: str, kind: type[Any]
) -> None:
    global collisions
    collisions = 3
    await dispatch(kind(url=migrated_url), max_tries=1)
    async with working(migrated_url, queue=("default",)) as worker:
        assert await settled(worker) == [Outcome.COMPLETED]
    assert runs == [1, 1, 1, 1]
    assert await effects(engine) == [1]


@pytest.mark.usefixtures("pair")
async def test_conflicts_without_an_end_fail_the_attempt(engine: AsyncEngine, migrated_url: str) -> None:
    global collisions
    collisions = 99
    await dispatch(Collides(url=migrated_url), max_tries=1)
    async with working(migrated_url, queue=("default",)) as worker:
        assert await settled(worker) == [Outcome.FAILED]
    assert runs == [1, 1, 1, 1]
    assert await effects(engine) == []


async def test_a_session_of_another_database_is_refused(engine: AsyncEngine, migrated_url: str, tmp_path: Path) -> None:
    (tmp_path / "other.db").touch()
    other = async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    refused.clear()
    engines.append(other)
    await dispatch(Elsewhere(), max_tries=1)
    async with working(migrated_url, queue=("default",)) as worker:
        assert await settled(worker) == [Outcome.COMPLETED]
    assert "this session writes to another database" in str(refused[0])
    await other.dispose()


class Elsewhere(Job):
    async def handle(self) -> None:
        async with AsyncSession(engines[1]) as session:
            try:
                await self.context.complete(session)
            except SessionUnusable as error:
                refused.append(error)


refused: list[SessionUnusable] = []


async def test_a_session_needs_a_connection_on_a_database(migrated_url: str) -> None:
    outbox.configure(database_url=migrated_url, redis_url="redis://127.0.0.1:1/0")
    with pytest.raises(InvalidJob, match="`handle` takes a session, and the connection 'redis' is not a database"):
        await dispatch(InSession(), connection="redis")


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        ("async def handle(self, session: Session) -> None: ...", "is async def, so .* annotated with AsyncSession"),
        ("def handle(self, session: AsyncSession) -> None: ...", "is plain def, so .* annotated with Session"),
        ("async def handle(self, session) -> None: ...", "called without arguments, or with a session"),
        ("async def handle(self, one: AsyncSession, two: int) -> None: ...", "called without arguments, or with"),
    ],
)
def test_a_handler_that_no_session_fits_is_refused_when_it_is_defined(handler: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        exec(f"class Refused(Job):\n    {handler}", {"Job": Job, "Session": Session, "AsyncSession": AsyncSession})
