"""Gap locks on the claim index, decision 9: whose they are, and at which isolation level there are none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from outbox.drivers.database import DatabaseDriver
from outbox.sync import dispatch
from tests.support.orders import Receipt

_OPEN = 300
_MORE = 900
"""Together more entries than a page of the claim index has, so that it is split among those of the open transaction."""

_BEGIN = datetime.now(UTC) - timedelta(hours=1)


def _moment(number: int) -> datetime:
    """Between those of the open transaction, which are a millisecond apart."""
    return _BEGIN + timedelta(milliseconds=number % _OPEN, microseconds=1 + number // _OPEN)


@pytest.mark.parametrize("claims", [True, False])
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
async def test_only_a_session_at_repeatable_read_can_hold_a_gap_that_a_claim_has_made(
    migrated_url: str, isolation: str, claims: bool
) -> None:
    if migrated_url.startswith("sqlite"):
        pytest.skip("SQLite has no locks of rows")
    url = make_url(migrated_url).set(drivername="mysql+pymysql")
    application = create_engine(url, isolation_level=isolation)  # type: ignore[arg-type]
    others = create_engine(url, isolation_level="READ COMMITTED", pool_size=1)
    driver = DatabaseDriver(migrated_url)
    waited = 0
    with Session(application) as open_session, Session(others) as other:
        for number in range(_OPEN):
            dispatch(Receipt(order_id=number), session=open_session, delay=_BEGIN + timedelta(milliseconds=number))
        open_session.flush()
        if claims:
            assert await driver.jobs.claim(["mail"], 10, 30) == [], "it looked at every uncommitted row"
        other.execute(text("SET innodb_lock_wait_timeout = 1"))
        for number in range(_MORE):
            dispatch(Receipt(order_id=number), session=other, delay=_moment(number))
            try:
                other.flush()
            except OperationalError as error:
                assert "1205" in str(error)  # noqa: PT017 - most of them do not wait
                other.rollback()
                waited += 1
                open_session.commit()
                dispatch(Receipt(order_id=number), session=other, delay=_moment(number))
                other.flush()
                break
    assert bool(waited) is (claims and isolation == "REPEATABLE READ")
    await driver.close()
    application.dispose()
    others.dispose()
