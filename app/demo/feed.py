"""Orders, readings and reports, through the application's own transactions, some of which fail on purpose."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Never, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from app import dataset, orders, readings
from app.db import transaction
from app.demo.ledger import Ledger, chart, processed, receipt_for
from app.jobs import GenerateReport
from app.payments import CardDeclined
from app.readings import NewReading
from outbox import dispatch_many

T = TypeVar("T")

SENSORS = [f"seattle-{number:02}" for number in range(1, 13)]
YEAR = 2010
BATCH = 75  # readings in a transaction
DECLINED_EVERY = 20  # orders
SPOILED_EVERY = 9  # batches that roll back at first
SAVEPOINT_EVERY = 5  # batches that hold a savepoint which rolls back
IN_VAIN = 10  # readings in such a savepoint


class OnPurpose(Exception):
    """Raised in the middle of a transaction, to see that nothing of it remains."""


def fail_on_purpose() -> Never:
    raise OnPurpose


async def feed(ledger: Ledger, *, order_count: int, reading_count: int, report_delay: timedelta) -> None:
    """Feed everything, and close the ledger."""
    await asyncio.gather(_feed_orders(ledger, order_count), _feed_readings(ledger, reading_count))
    await _feed_reports(ledger, report_delay)
    ledger.closed = True


async def _feed_orders(ledger: Ledger, count: int) -> None:
    for new in dataset.orders(count, declined_every=DECLINED_EVERY):
        await _order(ledger, new)


async def _order(ledger: Ledger, new: orders.NewOrder) -> None:
    try:
        async with transaction() as session:
            _, job_id = await orders.place(session, new)
    except CardDeclined:
        ledger.roll_back("orders", jobs=1)
        return
    ledger.commit([(job_id, receipt_for(new.customer))])
    ledger.counts["orders"] += 1


async def _feed_readings(ledger: Ledger, count: int) -> None:
    wanted = islice(dataset.readings(*SENSORS), count)
    for number, batch in enumerate(_batches(wanted, BATCH), start=1):
        if number % SPOILED_EVERY == 0:
            await _spoiled(ledger, batch)
        await _batch(ledger, batch, with_savepoint=number % SAVEPOINT_EVERY == 0)


async def _batch(ledger: Ledger, batch: Sequence[NewReading], *, with_savepoint: bool) -> None:
    async with transaction() as session:
        if with_savepoint:
            await _savepoint_in_vain(ledger, session, batch[:IN_VAIN])
        job_ids = await readings.record(session, batch)
    effects = [processed(reading.sensor, reading.measured_at) for reading in batch]
    ledger.commit(zip(job_ids, effects, strict=True))
    ledger.keep_order((reading.sensor, job_id) for reading, job_id in zip(batch, job_ids, strict=True))
    ledger.counts["readings"] += len(batch)


async def _spoiled(ledger: Ledger, batch: Sequence[NewReading]) -> None:
    try:
        async with transaction() as session:
            await readings.record(session, batch)
            fail_on_purpose()
    except OnPurpose:
        ledger.roll_back("batches", jobs=len(batch))


async def _savepoint_in_vain(ledger: Ledger, session: AsyncSession, batch: Sequence[NewReading]) -> None:
    try:
        async with session.begin_nested():
            await readings.record(session, batch)
            fail_on_purpose()
    except OnPurpose:
        ledger.roll_back("savepoints", jobs=len(batch))


async def _feed_reports(ledger: Ledger, delay: timedelta) -> None:
    """A report for each month, each of another sensor, and as many again in a transaction that rolls back."""
    jobs = [GenerateReport(sensor=sensor, year=YEAR, month=month) for month, sensor in enumerate(SENSORS, start=1)]
    try:
        async with transaction() as session:
            await dispatch_many(jobs, session=session, delay=delay)
            fail_on_purpose()
    except OnPurpose:
        ledger.roll_back("batches", jobs=len(jobs))
    async with transaction() as session:
        job_ids = await dispatch_many(jobs, session=session, delay=delay)
    ledger.commit(zip(job_ids, (chart(job.path.name) for job in jobs), strict=True))
    ledger.counts["reports"] += len(jobs)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
