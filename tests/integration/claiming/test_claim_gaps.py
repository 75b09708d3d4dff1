"""Gap locks on the claim index, decision 9: whose they are, what makes them, and that they end with their session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from outbox.drivers.database import DatabaseDriver
from outbox.drivers.database.tables import CLAIM_INDEX
from outbox.sync import dispatch
from tests.servers.sql import connection as autocommit
from tests.support.orders import Receipt

_OPEN = 300
_MORE = 900
"""Together more entries than a page of the claim index has, so that it is split among those of the open transaction."""
_OF_ONE_INSERT = 1_000
"""Jobs that one INSERT carries at most."""

_BEGIN = datetime.now(UTC) - timedelta(hours=1)

_GAPS = text(
    "SELECT COUNT(*) FROM performance_schema.data_locks WHERE index_name = :name AND object_schema = DATABASE() "
    "AND lock_type = 'RECORD' AND lock_mode NOT LIKE '%REC_NOT_GAP%' AND lock_mode NOT LIKE '%INSERT_INTENTION%'"
)
_LOCKED_ROWS = text("SELECT trx_rows_locked FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = :thread")
_WAITING = text("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")

pytestmark = [
    pytest.mark.parametrize(
        "backend", [pytest.param("mysql", marks=pytest.mark.mysql), pytest.param("mariadb", marks=pytest.mark.mariadb)]
    ),
    pytest.mark.alone_on_its_server("one by one"),
    # Which pages are split depends on them.
    pytest.mark.usefixtures("fresh_pages"),
]


def _moment(number: int, since: int = 0) -> datetime:
    """Between those of the open transaction, which are a millisecond apart."""
    return _BEGIN + timedelta(milliseconds=number % _OPEN, microseconds=1 + since + number // _OPEN)


@pytest.fixture
def others(migrated_url: str) -> Iterator[Engine]:
    """Other applications, at READ COMMITTED."""
    url = make_url(migrated_url).set(drivername="mysql+pymysql")
    engine = create_engine(url, isolation_level="READ COMMITTED", connect_args={"ssl_disabled": True})
    yield engine
    engine.dispose()


@pytest.fixture
def open_session(migrated_url: str, isolation: str) -> Iterator[Session]:
    """The transaction of an application that stays open."""
    url = make_url(migrated_url).set(drivername="mysql+pymysql")
    engine = create_engine(url, isolation_level=isolation, connect_args={"ssl_disabled": True})  # type: ignore[arg-type]
    with Session(engine) as session:
        yield session
    engine.dispose()


def another_waits(others: Engine, since: int = 0) -> bool:
    """Whether another application waits that inserts jobs among those of the open transaction, one by one."""
    with Session(others) as other:
        other.execute(text("SET innodb_lock_wait_timeout = 1"))
        for number in range(_MORE):
            dispatch(Receipt(order_id=number), session=other, delay=_moment(number, since))
            try:
                other.flush()
            except OperationalError as error:
                assert "1205" in str(error)  # noqa: PT017 - most of them do not wait
                other.rollback()
                return True
        other.commit()
    return False


def locked_rows(session: Session, url: str) -> int:
    """Locks of the open transaction that are more than implicit, as the server counts them. Servers count again only
    when 0.1 s have passed since the last question."""
    thread = session.scalar(text("SELECT CONNECTION_ID()"))
    with autocommit(url) as operator:
        return int(operator.execute(_LOCKED_ROWS, {"thread": thread}).scalar_one())


def lists_locks(url: str) -> bool:
    """MariaDB has no such list."""
    with autocommit(url) as operator:
        return not operator.dialect.is_mariadb  # type: ignore[attr-defined]


def gaps(url: str) -> int:
    """How many locks of gaps of the claim index there are, of any transaction."""
    if not lists_locks(url):
        return 0
    with autocommit(url) as operator:
        return int(operator.execute(_GAPS, {"name": CLAIM_INDEX}).scalar_one())


@pytest.mark.parametrize("claims", [0, 1])
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
async def test_a_claim_between_statements_makes_only_a_session_at_repeatable_read_hold_a_gap(
    migrated_url: str, driver: DatabaseDriver, others: Engine, open_session: Session, isolation: str, claims: int
) -> None:
    """A claim meets the entries of the open transaction: their locks become explicit. Pages that are split hand them on
    to gaps, unless the transaction is at READ COMMITTED. The other session waits until that transaction ends."""
    for number in range(_OPEN):
        dispatch(Receipt(order_id=number), session=open_session, delay=_BEGIN + timedelta(milliseconds=number))
    open_session.flush()
    for _ in range(claims):
        assert await driver.jobs.claim(["mail"], 10, 30) == [], "it looked at every uncommitted row"
    assert (locked_rows(open_session, migrated_url) > 0) is bool(claims)
    holds = bool(claims) and isolation == "REPEATABLE READ"
    assert another_waits(others) is holds
    assert (gaps(migrated_url) > 0) is (holds and lists_locks(migrated_url))
    open_session.rollback()
    assert not another_waits(others, since=100)
    await driver.jobs.claim(["mail"], 10, 30)
    assert gaps(migrated_url) == 0, "a claim holds none, nor do sessions that have ended"


@pytest.mark.parametrize("claims", [0, 2])
@pytest.mark.parametrize("isolation", ["READ COMMITTED"])
async def test_a_claim_in_the_middle_of_one_large_insert_makes_a_session_hold_a_gap_on_mysql(
    migrated_url: str, driver: DatabaseDriver, others: Engine, open_session: Session, backend: str, claims: int
) -> None:
    """MySQL hands locks of a transaction at READ COMMITTED on to gaps as well while its INSERT lasts: the statement of
    a dispatch has ON DUPLICATE KEY UPDATE."""
    moments = [_BEGIN + timedelta(milliseconds=number) for number in range(_OPEN)]
    moments += [_moment(number) for number in range(_OF_ONE_INSERT - _OPEN)]
    ids = [dispatch(Receipt(order_id=0), session=open_session, delay=moment) for moment in moments]
    with others.connect() as blocker:
        in_the_way(blocker, ids[_OPEN].bytes)
        insert = asyncio.create_task(asyncio.to_thread(open_session.flush))
        await until_it_waits(migrated_url)
        for _ in range(claims):
            assert await driver.jobs.claim(["mail"], 10, 30) == []
        blocker.commit()  # a rollback would hand the lock that is waited for on to a gap between keys
    await insert
    holds = bool(claims) and backend == "mysql"
    assert another_waits(others, since=100) is holds
    assert (gaps(migrated_url) > 0) is holds
    open_session.rollback()
    assert not another_waits(others, since=200)


def in_the_way(blocker: Connection, job_id: bytes) -> None:
    """Insert a row of another queue whose id is that of a job: the INSERT of the job waits for the transaction."""
    blocker.execute(
        text(
            "INSERT INTO queue_jobs (id, queue, name, priority, payload, headers, attempts, available_at, created_at) "
            "VALUES (:id, 'other', 'other', 5, '{}', '{}', 0, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))"
        ),
        {"id": job_id},
    )


async def until_it_waits(url: str) -> None:
    with autocommit(url) as operator:
        async with asyncio.timeout(30):
            while int(operator.execute(_WAITING).one()[1]) == 0:
                await asyncio.sleep(0.01)
