"""A transaction that stays open keeps deleted index entries alive: claims cost what they did, and hide no job for long.

What a claim costs is counted in pages by the server, which is otherwise idle. Whether the head is dear is a question of
durations, which a test does not rely on: the driver is told that it is, and its clock stands still until the test moves
it; or durations are made of the pages that its statements have looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from statistics import median

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from benchmarks.flat.ground import Ground, ground
from benchmarks.flat.loads import LOADS
from benchmarks.stores import Store
from outbox import clock, dispatch
from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.claim_scan.cursors import ClaimCursors
from outbox.drivers.database.claim_scan.scan_cost import LONGEST_COOLDOWN, ScanCost
from outbox.drivers.database.dialects import MySQL
from outbox.drivers.values import Claim
from outbox.settlement import Settlement
from tests.conformance.jobs import FAILURE, claim_one, envelope, envelopes
from tests.support.orders import Receipt

pytestmark = pytest.mark.alone_on_its_server("one by one")

SERVERS = (pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb))
GROWTH = {"mysql": 1.25, "mariadb": 2}
"""Of pages. On MariaDB the same claim differs by a fifth, and five hundred deleted entries that it walks over are twice
as much: it looks two pages up for each of them. MySQL only reads along the index."""

LEVELS = (0, 10_000, 20_000)
PASSED = 25_000
LOOKS = 20
SMALL = 20
"""Jobs of a claim that costs so little that a walk shows."""


@pytest.fixture(params=SERVERS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def even_costs() -> None:
    """Here costs differ."""


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Expensive(ScanCost):
    """Whatever is measured, the head is too dear."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        super().__init__(now)
        self.expensive = True

    @property
    def at_head(self) -> bool:
        return False


class Cheap(ScanCost):
    """However long looks take on this machine, each begins at the head."""

    def probed(self, seconds: float, counting: float, workers: int = 1) -> None:
        pass


class Work:
    """A clock that goes by the pages which the statements of a driver make the server look at."""

    def __init__(self, driver: DatabaseDriver) -> None:
        self.seconds = 0.0
        """That have passed without work."""
        self._pages = 0
        self._before = 0
        engine = driver.database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", self._begin)
        event.listen(engine, "after_cursor_execute", self._end)

    def now(self) -> float:
        return self.seconds + self._pages / 100_000

    def _begin(self, connection: Connection, *_: object) -> None:
        self._before = self._looked_at(connection)

    def _end(self, connection: Connection, *_: object) -> None:
        self._pages += self._looked_at(connection) - self._before

    def _looked_at(self, connection: Connection) -> int:
        cursor = connection.connection.cursor()
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_read_requests'")
        [(_, pages)] = cursor.fetchall()
        cursor.close()
        return int(pages)


class Indebted:
    """A driver that has drained a few hundred jobs and cannot afford a look from the head."""

    def __init__(self, url: str) -> None:
        self.clock = Clock()
        self.driver = DatabaseDriver(url)
        self.cursors = self.driver.jobs.claim_scan.cursors = ClaimCursors(self.clock)
        self.cursors.scan_cost = Expensive(self.clock)

    async def drain(self, jobs: int = 300) -> None:
        await self.driver.jobs.insert(envelopes(jobs))
        for _ in range(jobs // 100):
            await self.claim_and_complete(100)
        assert not self.cursors.affordable(["default"])

    async def claim_and_complete(self, count: int) -> None:
        claims = await self.driver.jobs.claim(["default"], count, 60)
        assert len(claims) == count
        await self.driver.jobs.settle([Settlement.completed(claim.fence) for claim in claims])

    def pass_time(self, seconds: float = 10.0) -> None:
        """As much as a single worker waits at most."""
        self.clock.seconds += seconds


@pytest.fixture
async def indebted(migrated_url: str) -> AsyncIterator[Indebted]:
    indebted = Indebted(migrated_url)
    yield indebted
    await indebted.driver.close()


class Late:
    """A transaction with a job that is committed only when others have long been taken."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(url)
        self._session = AsyncSession(self._engine)

    async def dispatch(self) -> None:
        await dispatch(Receipt(order_id=1), session=self._session, queue="default")
        await self._session.flush()

    async def commit(self) -> None:
        await self._session.commit()
        await self._session.close()
        await self._engine.dispose()


# --- what a claim costs


@pytest.mark.parametrize("load", [load for load in LOADS if "snapshot" in load.name], ids=lambda load: load.name)
async def test_a_claim_looks_at_as_many_pages_with_a_transaction_open_as_without(
    load: object, backend: str, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that looks at no head: on a busy machine those heads could be affordable again before every claim."""
    monkeypatch.setattr("outbox.drivers.database.claim_scan.cursors.ScanCost", Expensive)
    monkeypatch.setattr("outbox.drivers.database.claim_scan.cursor_scan.ClaimCursors", lambda: ClaimCursors(Clock()))
    costs = await load.costs(Store(backend, migrated_url, owned=False), LEVELS, counted=True)  # type: ignore[attr-defined]
    pages = {level: cost.pages for level, cost in costs}
    assert max(pages.values()) <= GROWTH[backend] * pages[0], (
        f"pages per claim of 100 jobs, by jobs gone through: {pages}"
    )


async def test_without_marks_it_would_be_more(backend: str, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would prove nothing."""
    monkeypatch.setattr(MySQL, "keeps_deleted", False)
    [load] = [load for load in LOADS if load.name == "flat-snapshot"]
    costs = await load.costs(Store(backend, migrated_url, owned=False), LEVELS, counted=True)
    pages = {level: cost.pages for level, cost in costs}
    assert pages[LEVELS[-1]] > (20 if backend == "mariadb" else GROWTH[backend]) * pages[0], (
        f"pages per claim of 100 jobs, by jobs gone through: {pages}"
    )


async def test_an_idle_look_costs_no_more_either(backend: str, migrated_url: str) -> None:
    async with ground(Store(backend, migrated_url, owned=False), counted=True) as loaded:
        await loaded.keep_snapshot()
        await loaded.pass_through(PASSED)
        driver = claimer(loaded)
        marks = driver.jobs.claim_scan.cursors = ClaimCursors(Clock())
        marks.scan_cost = Expensive()
        # From the head, each walks over all that has gone through: some can be afforded, but not one after the other.
        in_debt = await pages_of_most_looks(loaded, driver)
        marks = driver.jobs.claim_scan.cursors = ClaimCursors()
        marks.scan_cost = Cheap()
        assert in_debt < await pages_of_most_looks(loaded, driver) / 10


async def test_it_is_noticed_and_claims_return_to_the_head_when_the_transaction_has_ended(
    backend: str, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_async_engine(migrated_url)
    async with ground(Store(backend, migrated_url, owned=False), counted=True) as loaded, engine.connect() as snapshot:
        await snapshot.execute(text("ROLLBACK"))
        await snapshot.execute(text("START TRANSACTION WITH CONSISTENT SNAPSHOT"))
        await loaded.pass_through(PASSED)
        driver = claimer(loaded)
        work = Work(driver)
        marks = driver.jobs.claim_scan.cursors = ClaimCursors(work.now)
        monkeypatch.setattr("outbox.clock.now", work.now)
        for _ in range(4):
            await loaded.pass_through(SMALL)
            work.seconds += LONGEST_COOLDOWN
        assert marks.scan_cost.expensive
        await snapshot.rollback()
        async with asyncio.timeout(120):
            while marks.scan_cost.expensive:
                # However long it rests from trying: what is left to wait for is the server, which cleans up.
                work.seconds += LONGEST_COOLDOWN
                await loaded.pass_through(SMALL)
    await engine.dispose()


def claimer(loaded: Ground) -> DatabaseDriver:
    driver = loaded.drivers[0]
    assert isinstance(driver, DatabaseDriver)
    return driver


async def pages_of_most_looks(loaded: Ground, driver: DatabaseDriver) -> float:
    """The median: the pages are those of the whole server, and what it does in the background falls into few looks."""
    costs = []
    for _ in range(LOOKS):
        before = await pages(loaded)
        await driver.jobs.next_due(["default"])
        costs.append(await pages(loaded) - before)
    return median(costs)


async def pages(loaded: Ground) -> int:
    [reads] = await loaded.reads()
    return reads.pages


# --- what lands behind the marks


async def test_a_late_commit_is_taken_after_a_while_in_debt(indebted: Indebted, migrated_url: str) -> None:
    late = Late(migrated_url)
    await late.dispatch()
    await indebted.drain()
    await late.commit()
    assert await indebted.driver.jobs.claim(["default"], 10, 60) == []
    indebted.pass_time()
    claim = await claim_one(indebted.driver)
    assert "Receipt" in claim.name


async def test_an_idle_look_tells_of_a_late_commit_after_a_while_in_debt(indebted: Indebted, migrated_url: str) -> None:
    late = Late(migrated_url)
    await late.dispatch()
    await indebted.drain()
    await late.commit()
    due = (await indebted.driver.jobs.next_due(["default"])).due
    assert due is not None
    assert due > 0, "when to look again"
    indebted.pass_time()
    assert (await indebted.driver.jobs.next_due(["default"])).due == 0.0
    await claim_one(indebted.driver)


async def test_a_job_of_a_priority_that_was_never_used_is_taken_after_a_while_in_debt(indebted: Indebted) -> None:
    await indebted.drain()
    await indebted.driver.jobs.insert([envelope(priority=0), envelope(priority=9), *envelopes(2)])
    assert [claim.priority for claim in await indebted.driver.jobs.claim(["default"], 2, 60)] == [5, 5]
    indebted.pass_time()
    assert [claim.priority for claim in await indebted.driver.jobs.claim(["default"], 10, 60)] == [0, 9]


async def test_a_backlog_of_the_past_is_taken_to_its_end(indebted: Indebted) -> None:
    await indebted.drain()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    await indebted.driver.jobs.insert([envelope(number, available_at=yesterday) for number in range(250)])
    await indebted.driver.jobs.insert(envelopes(50))
    assert len(await indebted.driver.jobs.claim(["default"], 100, 60)) == 50
    indebted.pass_time()
    for count in (100, 100, 50):
        await indebted.claim_and_complete(count)


async def test_what_is_put_back_or_retried_or_left_is_found_in_debt_as_well(indebted: Indebted) -> None:
    """It becomes available now, or when its lease ends, and so in front of the marks."""
    driver = indebted.driver
    await indebted.drain()
    await driver.jobs.insert(envelopes(2))
    put_back, failed = await driver.jobs.claim(["default"], 2, 60)
    ends = [Settlement.released(put_back.fence, 0), Settlement.failed(failed.fence, FAILURE)]
    await driver.jobs.settle(ends)
    assert (await claim_one(driver)).fence.job_id == put_back.fence.job_id
    await driver.failed.retry_all()
    assert (await claim_one(driver, lease=0.1)).fence.job_id == failed.fence.job_id
    rescued: list[Claim] = []
    async with asyncio.timeout(60):
        while not rescued:
            indebted.pass_time(1.0)
            rescued = await driver.jobs.claim(["default"], 1, 60)
    assert rescued[0].fence.job_id == failed.fence.job_id
    assert rescued[0].rescued


@pytest.mark.parametrize("compared", [False, True])
async def test_with_no_debt_a_late_commit_is_taken_by_the_very_next_claim(migrated_url: str, compared: bool) -> None:
    """One in sixteen of these claims is made from the marks, for comparison, and finds the same."""
    driver, late = DatabaseDriver(migrated_url), Late(migrated_url)
    marks = driver.jobs.claim_scan.cursors
    assert marks is not None
    await driver.jobs.insert(envelopes(2_000))
    await late.dispatch()
    await driver.jobs.insert(envelopes(100))
    for _ in range(21):
        assert len(await driver.jobs.claim(["default"], 100, 60)) == 100
        marks.scan_cost = ScanCost()
    await late.commit()
    await driver.jobs.insert([envelope(), envelope(priority=7)])
    if compared:
        for _ in range(20):
            marks.scan_cost.from_head(100, 0.001, 0.001, 0.01)
    assert marks.scan_cost.at_head is not compared
    names = [claim.name for claim in await driver.jobs.claim(["default"], 2, 60)]
    assert "Receipt" in names[0]
    assert [claim.priority for claim in await driver.jobs.claim(["default"], 2, 60)] == [7]
    await driver.close()
