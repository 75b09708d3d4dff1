"""What a dispatch adds to the business transaction that it belongs to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, String, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.jobs import NoOp
from benchmarks.scenario import Sample, Scenario, Site, Variant
from benchmarks.sizes import Sizes
from benchmarks.stores import DATABASES, Store
from outbox import dispatch
from outbox.drivers.database.dialects import Statement, dialect_for
from outbox.envelope import Envelope
from outbox.ids import new_job_id

_MICROSECONDS = 1_000_000


class Base(DeclarativeBase):
    pass


class Order(Base):
    """The business data."""

    __tablename__ = "bench_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(String(100))
    total: Mapped[int]


class Meter:
    """Time on the clock, time of this process's processors, and statements sent."""

    def __init__(self, engine: Engine) -> None:
        self.seconds = self.processor = 0.0
        self.statements = 0
        event.listen(engine, "before_cursor_execute", self._sent)
        self._sent_now = 0

    def _sent(self, *_: Any) -> None:
        self._sent_now += 1

    def start(self) -> tuple[float, float, int]:
        return time.perf_counter(), time.process_time(), self._sent_now

    def stop(self, begun: tuple[float, float, int]) -> None:
        self.seconds += time.perf_counter() - begun[0]
        self.processor += time.process_time() - begun[1]
        self.statements += self._sent_now - begun[2]


async def _by_driver(session: AsyncSession, statement: Statement) -> None:
    connection = await (await session.connection()).get_raw_connection()
    driver: Any = connection.driver_connection
    async with driver.cursor() as cursor:
        await cursor.execute(*statement)


async def _by_sqlalchemy(session: AsyncSession, statement: Statement) -> None:
    await (await session.connection()).exec_driver_sql(*statement)


_INSERTS = {"driver": _by_driver, "SQLAlchemy": _by_sqlalchemy}
_KINDS = (None, *_INSERTS, "outbox")
"""What writes the job of a transaction, if it has one."""


async def _transaction(engine: AsyncEngine, number: int, kind: str | None) -> None:
    async with AsyncSession(engine) as session, session.begin():
        order = Order(customer="Ada Lovelace", total=number)
        session.add(order)
        await session.flush()
        if kind == "outbox":
            await dispatch(NoOp(number=order.id), session=session)
        elif kind is not None:
            job = Envelope(new_job_id(), "default", NoOp.name, 5, f'{{"number":{order.id}}}')
            await _INSERTS[kind](session, dialect_for(engine.dialect).insert([job]))


async def _calls(engine: AsyncEngine, count: int) -> float:
    """Seconds of processor time per call of ``dispatch``, nothing being written."""
    async with AsyncSession(engine) as session:
        await dispatch(NoOp(number=0), session=session)
        begun = time.process_time()
        for number in range(count):
            await dispatch(NoOp(number=number), session=session)
        seconds = time.process_time() - begun
        session.expunge_all()
    return seconds / count


async def _measure(site: Site) -> Sample:
    """The same transaction without a job, with the bare INSERT of one, and with a dispatch, in turns."""
    engine = create_async_engine(site.store.url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    count = site.sizes.transactions
    async with site.store.in_use():
        for number in range(count // 10 + 1):
            for kind in _KINDS:
                await _transaction(engine, number, kind)
        meters = {kind: Meter(engine.sync_engine) for kind in _KINDS}
        for number in range(count):
            for kind, meter in meters.items():
                begun = meter.start()
                await _transaction(engine, number, kind)
                meter.stop(begun)
        call = await _calls(engine, site.sizes.calls)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()
    without, driver, sqlalchemy, with_ = meters.values()
    processor = [_MICROSECONDS * meter.processor / count for meter in (without, driver, sqlalchemy, with_)]
    return Sample(
        {
            "ms without": 1_000 * without.seconds / count,
            "ms with": 1_000 * with_.seconds / count,
            "share %": 100 * (1 - without.seconds / with_.seconds),
            "statements more": (with_.statements - without.statements) / count,
            "CPU µs of the call": _MICROSECONDS * call,
            "CPU µs more, INSERT included": processor[3] - processor[0],
            "of it the driver": processor[1] - processor[0],
            "of it SQLAlchemy": processor[2] - processor[1],
            "of it outbox": processor[3] - processor[2],
        }
    )


def _variants(_: Store, __: Sizes) -> Sequence[Variant]:
    return [Variant("an order, with and without a dispatch", _measure)]


BUSINESS = Scenario("dispatch-in-transaction", "Dispatch inside a business transaction", _variants, stores=DATABASES)
