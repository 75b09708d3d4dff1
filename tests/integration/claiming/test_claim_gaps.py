"""What a claim locks: rows that it takes, by their primary key. No entry and no gap of the claim index, decision 9."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.claim_scan.cursor_scan import scan_for
from outbox.drivers.database.connection.database import Database
from outbox.drivers.database.connection.engine import parse_url
from outbox.drivers.database.jobs.claim import claim
from outbox.sync import dispatch
from tests.conformance.jobs import envelopes
from tests.support.orders import Receipt
from tests.support.record_locks import ROW, record_locks

_OPEN = 300
_MORE = 900
"""Together more entries than a page of the claim index has, so that it is split among those of the open transaction."""

_BEGIN = datetime.now(UTC) - timedelta(hours=1)

CANDIDATES = 36
"""How many jobs a claim of one job looks at first."""


@pytest.fixture(
    params=[pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def backend(request: pytest.FixtureRequest) -> str:
    """SQLite has no locks of rows."""
    return str(request.param)


@pytest.fixture
async def driver(migrated_url: str) -> AsyncIterator[DatabaseDriver]:
    driver = DatabaseDriver(migrated_url)
    yield driver
    await driver.close()


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(parse_url(migrated_url))
    yield database
    await database.close()


@pytest.fixture
def application(migrated_url: str) -> Iterator[Engine]:
    """At REPEATABLE READ, the servers' default. At READ COMMITTED InnoDB lets no lock become one of a gap."""
    url = make_url(migrated_url).set(drivername="mysql+pymysql")
    engine = create_engine(url, isolation_level="REPEATABLE READ")
    yield engine
    engine.dispose()


def _moment(number: int) -> datetime:
    """Between those of the open transaction, which are a millisecond apart."""
    return _BEGIN + timedelta(milliseconds=number % _OPEN, microseconds=1 + number // _OPEN)


def dispatch_and_stay_open(session: Session) -> None:
    for number in range(_OPEN):
        dispatch(Receipt(order_id=number), session=session, delay=_BEGIN + timedelta(milliseconds=number))
    session.flush()


async def test_no_dispatch_waits_for_an_open_transaction_whose_jobs_a_claim_has_met(
    driver: DatabaseDriver, application: Engine
) -> None:
    with Session(application) as open_session, Session(application) as other:
        dispatch_and_stay_open(open_session)
        assert await driver.claim(["mail"], 10, 30) == [], "it passed every uncommitted job"
        other.execute(text("SET innodb_lock_wait_timeout = 1"))
        for number in range(_MORE):
            dispatch(Receipt(order_id=number), session=other, delay=_moment(number))
            try:
                other.flush()
            except OperationalError:
                pytest.fail(f"INSERT {number} waited for the open transaction")


async def test_a_locking_read_of_the_claim_index_would_let_it_wait(database: Database, application: Engine) -> None:
    """Or the test above would prove nothing."""
    with Session(application) as open_session, Session(application) as other:
        dispatch_and_stay_open(open_session)
        async with database.engine.connect() as claimer:
            found = (
                "SELECT id FROM queue_jobs FORCE INDEX (queue_jobs_claim) WHERE queue = 'mail' FOR UPDATE SKIP LOCKED"
            )
            assert (await claimer.execute(text(found))).all() == []
        other.execute(text("SET innodb_lock_wait_timeout = 1"))
        with pytest.raises(OperationalError, match="1205"):
            for number in range(_MORE):
                dispatch(Receipt(order_id=number), session=other, delay=_moment(number))
                other.flush()


@pytest.mark.parametrize("short_jobs", [False, True], ids=["from the head", "going on in a backlog"])
async def test_a_claim_locks_the_rows_that_it_takes_and_nothing_else(
    database: Database, driver: DatabaseDriver, application: Engine, migrated_url: str, short_jobs: bool
) -> None:
    await driver.insert(envelopes(500, queue="mail"))
    held: list[Counter[tuple[str, str]]] = []
    with Session(application) as open_session:
        dispatch_and_stay_open(open_session)
        before = record_locks(migrated_url, "queue_jobs")

        @event.listens_for(database.engine.sync_engine, "commit")
        def note(_: object) -> None:
            held.append(record_locks(migrated_url, "queue_jobs") - before)

        scan = scan_for(database)
        for _ in range(6):
            assert len(await claim(database, scan, "database", ["mail"], 20, 30, short_jobs=short_jobs)) == 20
        assert record_locks(migrated_url, "queue_jobs") == before, "none is left, nor made of the application's"
    assert held == [{("PRIMARY", ROW): 20}] * 6


@asynccontextmanager
async def others_have_locked(database: Database, count: int) -> AsyncIterator[AsyncConnection]:
    """The first jobs of the queue, in a transaction that stays open."""
    dialect = database.dialect
    async with database.engine.connect() as connection:
        rows = await connection.exec_driver_sql(*dialect.select_claimable("default", dialect.due(), count, count))
        assert len(list(rows)) == count
        yield connection
        await connection.rollback()


async def test_claims_find_work_behind_all_that_others_hold(database: Database, driver: DatabaseDriver) -> None:
    """More jobs are held than a claim looks at first."""
    await driver.insert(envelopes(CANDIDATES + 2))
    async with others_have_locked(database, CANDIDATES):
        first, second = await asyncio.gather(driver.claim(["default"], 1, 30), driver.claim(["default"], 1, 30))
        assert len(first) == len(second) == 1
        assert await driver.claim(["default"], 1, 30) == []


async def test_a_claim_of_a_backlog_is_full_although_others_hold_much_of_it(
    database: Database, driver: DatabaseDriver
) -> None:
    """A claim that comes back with less says that the queue is empty."""
    await driver.insert(envelopes(300))
    assert len(await driver.claim(["default"], 10, 30)) == 10
    async with others_have_locked(database, 70):
        assert len(await driver.claim(["default"], 10, 30)) == 10


async def test_a_job_that_others_took_after_it_was_found_is_not_taken(
    database: Database, driver: DatabaseDriver, backend: str
) -> None:
    """The claim index is read as it was when a snapshot was made; the rows that are locked are those of now."""
    await driver.insert(envelopes(5))
    dialect = database.dialect
    async with database.engine.connect() as connection:
        await connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        assert len(await driver.claim(["default"], 3, 30)) == 3
        found = await connection.exec_driver_sql("SELECT COUNT(*) FROM queue_jobs WHERE reserved_by IS NULL")
        assert found.scalar_one() == 5, "the snapshot is older than the claim"
        rows = await connection.exec_driver_sql(*dialect.select_claimable("default", dialect.due(), 5, 20))
        assert len(list(rows)) == 2
        await connection.rollback()
